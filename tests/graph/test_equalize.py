import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from fettle.core.errors import ModelError
from fettle.graph._layers import layers
from fettle.graph.equalize import Equalize

F = np.float32


def triple(build, activation="Relu", spread=50.0, extra=()):
    """Pointwise, depthwise, pointwise, with channels of very different ranges."""
    rng = np.random.default_rng(0)
    ranges = np.exp(rng.uniform(-np.log(spread), 0, 6))
    held = {
        "w1": (rng.normal(size=(6, 3, 1, 1)) * ranges[:, None, None, None]).astype(F),
        "b1": rng.normal(size=6).astype(F),
        "w2": (rng.normal(size=(6, 1, 3, 3)) * ranges[::-1, None, None, None]).astype(F),
        "b2": rng.normal(size=6).astype(F),
        "w3": rng.normal(size=(4, 6, 1, 1)).astype(F),
        "six": np.array(6, F),
        "zero": np.array(0, F),
        "slope": rng.uniform(0, 1, (6, 1, 1)).astype(F),
    }
    rest = {"Clip": ["zero", "six"], "PRelu": ["slope"]}.get(activation, [])
    nodes = [
        ("Conv", ["x", "w1", "b1"], ["a"]),
        (activation, ["a", *rest], ["b"]),
        ("Conv", ["b", "w2", "b2"], ["c"], {"group": 6, "pads": [1, 1, 1, 1]}),
        (activation, ["c", *rest], ["d"]),
        ("Conv", ["d", "w3"], ["y"]),
        *extra,
    ]
    used = {name for node in nodes for name in node[1]}
    held = {k: v for k, v in held.items() if k in used}
    outputs = {"y": onnx.TensorProto.FLOAT} | {n[2][0]: onnx.TensorProto.FLOAT for n in extra}
    return build(nodes, held, {"x": ["n", 3, 5, 5]}, outputs)


def ranges_of(model):
    """Return the largest weight by output and by input channel of each layer."""
    found = []
    for layer in layers(model.graph):
        weight = np.abs(layer.canonical(layer.weight))
        found.append((weight.max((2, 3)).reshape(-1), weight.max((1, 3)).reshape(-1)))
    return found


def in_float64(proto, x):
    """Return the outputs of the reference evaluator with every constant and input in float64."""
    double = onnx.ModelProto.FromString(proto.SerializeToString())
    for tensor in double.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.dtype == F:
            tensor.CopyFrom(onnx.numpy_helper.from_array(array.astype(np.float64), tensor.name))
    return ReferenceEvaluator(double).run(None, {"x": x.astype(np.float64)})[0]


@pytest.mark.parametrize("activation", ["Relu", "PRelu", "LeakyRelu", "Identity"])
def test_ranges_become_equal_and_the_function_stays(build, activation):
    graph = triple(build, activation)
    result = Equalize(limit=1e6, rounds=1000)(graph.ir)
    (out1, _), (out2, in2), (_, in3) = ranges_of(result)
    np.testing.assert_allclose(out1, in2, rtol=1e-3)
    np.testing.assert_allclose(out2, in3, rtol=1e-3)
    x = np.random.default_rng(1).normal(size=(3, 3, 5, 5))
    before, after = (in_float64(proto, x) for proto in (graph.proto, ir.to_proto(result)))
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)  # weights rounded to float32
    onnx.checker.check_model(ir.to_proto(result), full_check=True)


def test_two_layers_follow_the_closed_form(build):
    rng = np.random.default_rng(0)
    held = {"w": rng.normal(size=(5, 4)).astype(F), "b": rng.normal(size=5).astype(F),
            "v": rng.normal(size=(5, 3)).astype(F)}  # fmt: skip
    nodes = [("Gemm", ["x", "w", "b"], ["a"], {"transB": 1}), ("Relu", ["a"], ["r"]),
             ("MatMul", ["r", "v"], ["y"])]  # fmt: skip
    graph = build(nodes, held)
    r1, r2 = np.abs(held["w"]).max(1), np.abs(held["v"]).max(1)
    s = np.sqrt(r1.astype(np.float64) / r2)
    result = Equalize()(graph.ir)
    found = {v.name: v.const_value.numpy() for v in result.graph.initializers.values()}
    np.testing.assert_allclose(found["w"], held["w"] / s[:, None], rtol=1e-6)
    np.testing.assert_allclose(found["b"], held["b"] / s, rtol=1e-6)
    np.testing.assert_allclose(found["v"], held["v"] * s[:, None], rtol=1e-6)


def test_channels_pass_pools_a_flatten_and_a_sum(build, run):
    rng = np.random.default_rng(0)
    scale = np.array([1, 0.01, 10], F)
    held = {
        "w": (rng.normal(size=(3, 2, 3, 3)) * scale[:, None, None, None]).astype(F),
        "v": rng.normal(size=(12, 4)).astype(F), "c": rng.normal(size=4).astype(F),
        "u": rng.normal(size=(4, 2)).astype(F),
    }  # fmt: skip
    nodes = [
        ("Conv", ["x", "w"], ["a"]),
        ("MaxPool", ["a"], ["p"], {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Flatten", ["p"], ["f"]),
        ("MatMul", ["f", "v"], ["m"]),
        ("Add", ["c", "m"], ["s"]),
        ("Relu", ["s"], ["r"]),
        ("MatMul", ["r", "u"], ["y"]),
    ]
    graph = build(nodes, held, {"x": ["n", 2, 6, 6]})
    result = Equalize(limit=1e6, rounds=1000)(graph.ir)
    (conv, _), (first_out, first_in), (_, second_in) = ranges_of(result)
    np.testing.assert_allclose(conv, first_in.reshape(3, 4).max(1), rtol=1e-3)
    np.testing.assert_allclose(first_out, second_in, rtol=1e-3)
    x = rng.normal(size=(3, 2, 6, 6)).astype(F)
    expected, found = (run(m, {"x": x})["y"] for m in (graph.proto, result))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("activation", "extra"),
    [("Clip", ()), ("Sigmoid", ()), ("Relu", [("Neg", ["b"], ["e"]), ("Neg", ["d"], ["g"])])],
    ids=["ReLU6", "not homogeneous", "other readers"],
)
def test_what_cannot_be_scaled_stays(build, activation, extra):
    graph = triple(build, activation, extra=extra)
    before, after = ranges_of(graph.ir), ranges_of(Equalize()(graph.ir))
    np.testing.assert_array_equal(np.concatenate(sum(before, ())), np.concatenate(sum(after, ())))


def test_a_shared_weight_stays(build):
    rng = np.random.default_rng(0)
    nodes = [("MatMul", ["x", "w"], ["a"]), ("Relu", ["a"], ["r"]), ("MatMul", ["r", "w"], ["y"])]
    weight = rng.normal(size=(4, 4)).astype(F)
    result = Equalize()(build(nodes, {"w": weight}).ir)
    np.testing.assert_array_equal(result.graph.initializers["w"].const_value.numpy(), weight)


def test_dead_channels_stay_finite_and_the_limit_holds(build):
    rng = np.random.default_rng(0)
    w, v = rng.normal(size=(4, 4)).astype(F), rng.normal(size=(4, 4)).astype(F)
    w[:, 0], v[1], w[:, 2] = 0, 0, 1e-12
    nodes = [("MatMul", ["x", "w"], ["a"]), ("MatMul", ["a", "v"], ["y"])]
    result = Equalize(limit=10)(build(nodes, {"w": w, "v": v}).ir)
    found = result.graph.initializers["w"].const_value.numpy()
    np.testing.assert_array_equal(found[:, :2], w[:, :2])
    np.testing.assert_allclose(found[:, 2], 1e-11, rtol=1e-5)


def test_a_second_pass_changes_nothing(build):
    once = Equalize(limit=1e6, rounds=1000)(triple(build).ir)
    ranges = ranges_of(once)
    for first, second in zip(ranges, ranges_of(Equalize(limit=1e6)(once)), strict=True):
        np.testing.assert_allclose(np.concatenate(first), np.concatenate(second), rtol=1e-3)


def test_a_quantized_model_is_refused(build):
    held = {"q": np.ones((4, 4), np.int8), "s": np.array(0.1, F)}
    nodes = [("DequantizeLinear", ["q", "s"], ["w"]), ("MatMul", ["x", "w"], ["y"])]
    with pytest.raises(ModelError, match="quantized already"):
        Equalize()(build(nodes, held).ir)
