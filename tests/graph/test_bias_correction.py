import numpy as np
import onnx
import onnx_ir as ir
import pytest

from fettle.core.errors import DataError, ModelError
from fettle.graph._bias_correction import correct_biases

F = np.float32
RNG = np.random.default_rng(0)
X = RNG.uniform(0, 1, (64, 3, 6, 6)).astype(F)


def batches(x=X, size=16):
    return lambda: ({"x": x[i : i + size]} for i in range(0, len(x), size))


def both(build, nodes, held, weights, shape, bits=3):
    """Return a float graph, and the same with coarse weights behind DequantizeLinear nodes."""
    original = build(nodes, {**held, **weights}, {"x": shape})
    coded, front = {}, []
    for name, weight in weights.items():
        scale = np.abs(weight).max() / (2 ** (bits - 1) - 1)
        coded |= {f"{name}q": np.rint(weight / scale).astype(np.int8), f"{name}s": F(scale)}
        front.append(("DequantizeLinear", [f"{name}q", f"{name}s"], [name]))
    return original, build([*front, *nodes], {**held, **coded}, {"x": shape})


def mean_error(run, original, model, x=X, axis=1):
    """Return the mean error by channel (`axis`) and the largest error of an element."""
    a, b = (np.asarray(run(m, {"x": x})["y"], np.float64) for m in (original.proto, model))
    return (b - a).mean(tuple(i for i in range(a.ndim) if i != axis % a.ndim)), np.abs(b - a).max()


ONE_LAYER = {
    "conv": ([("Conv", ["x", "w", "b"], ["y"], {"pads": [1, 1, 1, 1], "strides": [2, 2]})],
             (4, 3, 3, 3), (4,)),
    "conv without bias": ([("Conv", ["x", "w"], ["y"])], (4, 3, 3, 3), None),
    "depthwise": ([("Conv", ["x", "w", "b"], ["y"], {"group": 3})], (3, 1, 3, 3), (3,)),
    "transposed": ([("ConvTranspose", ["x", "w", "b"], ["y"], {"strides": [2, 2]})],
                   (3, 4, 3, 3), (4,)),
    "matmul": ([("MatMul", ["x", "w"], ["y"])], (6, 5), None),
    "matmul and sum": ([("MatMul", ["x", "w"], ["m"]), ("Add", ["b", "m"], ["y"])], (6, 5), (5,)),
    "gemm": ([("Flatten", ["x"], ["f"]), ("Gemm", ["f", "w", "b"], ["y"],
              {"transB": 1, "alpha": 0.5, "beta": 2.0})], (5, 108), (5,)),
    "gemm with a row of biases": ([("Flatten", ["x"], ["f"]), ("Gemm", ["f", "w", "b"], ["y"])],
                                  (108, 5), (1, 5)),
    "gemm without": ([("Flatten", ["x"], ["f"]), ("Gemm", ["f", "w"], ["y"])], (108, 5), None),
    "gemm with a bias by row": ([("Flatten", ["x"], ["f"]),
                                 ("Gemm", ["f", "w", "r"], ["y"])], (108, 5), None),
}  # fmt: skip


@pytest.mark.parametrize("mode", ["fast", "full"])
@pytest.mark.parametrize("kind", ONE_LAYER)
def test_the_mean_error_of_a_layer_vanishes(build, run, kind, mode):
    nodes, shape, bias = ONE_LAYER[kind]
    rng = np.random.default_rng(1)
    held = {"b": rng.normal(size=bias).astype(F)} if bias else {}
    if "by row" in kind:
        held["r"] = np.ones((1, 1), F)
    weights = {"w": rng.normal(size=shape).astype(F)}
    original, quantized = both(build, nodes, held, weights, ["n", 3, 6, 6])
    model = quantized.ir
    axis = -1 if "matmul" in kind else 1
    before, _ = mean_error(run, original, model, axis=axis)
    correct_biases(model, original.ir, batches(), mode)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    after, left = mean_error(run, original, model, axis=axis)
    assert np.abs(before).max() > 0.02
    np.testing.assert_allclose(after, 0, atol=2e-6)
    assert left > 0.01  # the rest of the error is no bias, and stays


def test_fast_is_the_formula(build):
    rng = np.random.default_rng(2)
    weight, bias = rng.normal(size=(6, 5)).astype(F), rng.normal(size=5).astype(F)
    nodes = [("MatMul", ["x", "w"], ["m"]), ("Add", ["m", "b"], ["y"])]
    original, quantized = both(build, nodes, {"b": bias}, {"w": weight}, ["n", 3, 6, 6])
    model = quantized.ir
    correct_biases(model, original.ir, batches(), "fast")
    held = {v.name: v.const_value.numpy() for v in model.graph.initializers.values()}
    error = held["wq"].astype(np.float64) * held["ws"] - weight
    expected = bias - X.reshape(-1, 6).mean(0, dtype=np.float64) @ error
    np.testing.assert_allclose(held["b"], expected, rtol=1e-5)


def two_layers(build):
    rng = np.random.default_rng(3)
    nodes = [("Conv", ["x", "w", "b"], ["a"]), ("Relu", ["a"], ["r"]), ("Conv", ["r", "v"], ["y"])]
    weights = {"w": rng.normal(size=(8, 3, 3, 3)).astype(F),
               "v": rng.normal(size=(4, 8, 3, 3)).astype(F)}  # fmt: skip
    return both(build, nodes, {"b": np.zeros(8, F)}, weights, ["n", 3, 6, 6])


def test_full_heeds_the_layers_before(build, run):
    original, quantized = two_layers(build)
    errors = {}
    for mode in ("fast", "full"):
        model = quantized.ir
        correct_biases(model, original.ir, batches(), mode)
        errors[mode] = np.abs(mean_error(run, original, model)[0]).max()
    before = np.abs(mean_error(run, original, quantized.ir)[0]).max()
    assert errors["full"] < 1e-5 < errors["fast"] < before


def test_full_leaves_the_rounding_of_activations_alone(build):
    """The float graph's own weights, and a grid that takes half a step off each activation."""
    rng = np.random.default_rng(5)
    weights = {"w": rng.integers(-3, 4, (4, 3, 1, 1)).astype(F)}
    held = {"b": np.zeros(4, F), "s": F(0.2), "z": np.array(0, np.int8)}
    original = build([("Conv", ["x", "w", "b"], ["y"])], {**held, **weights}, {"x": ["n", 3, 6, 6]})
    nodes = [
        ("QuantizeLinear", ["x", "s", "z"], ["q"]),
        ("DequantizeLinear", ["q", "s", "z"], ["a"]),
        ("Conv", ["a", "w", "b"], ["y"]),
    ]
    _, quantized = both(build, nodes, held, weights, ["n", 3, 6, 6])
    model = quantized.ir
    x = np.full((8, 3, 6, 6), 0.29, F)
    correct_biases(model, original.ir, batches(x), "full")
    np.testing.assert_allclose(model.graph.initializers["b"].const_value.numpy(), 0, atol=1e-6)


def test_batches_weigh_by_their_examples(build):
    original, quantized = two_layers(build)
    found = []
    for size in (64, 48, 7):
        model = quantized.ir
        correct_biases(model, original.ir, batches(size=size), "full")
        found.append(model.graph.initializers["b"].const_value.numpy())
    np.testing.assert_allclose(found[1], found[0], atol=1e-5)
    np.testing.assert_allclose(found[2], found[0], atol=1e-5)


def test_the_original_is_left_as_it_is(build):
    original, quantized = two_layers(build)
    float_model = original.ir
    before = ir.to_proto(float_model).SerializeToString(deterministic=True)
    correct_biases(quantized.ir, float_model, batches(), "full")
    assert ir.to_proto(float_model).SerializeToString(deterministic=True) == before


def test_an_integer_bias_is_moved_in_its_own_scale(build, run):
    original, _ = both(build, *_integer_bias()[:3], ["n", 3, 6, 6])
    _, quantized = both(build, *_integer_bias(), ["n", 3, 6, 6])
    model = quantized.ir
    correct_biases(model, original.ir, batches(), "fast")
    assert model.graph.initializers["bq"].const_value.numpy().dtype == np.int32
    assert np.abs(mean_error(run, original, model)[0]).max() <= 0.5 * 1e-4 * 1.1


def _integer_bias():
    nodes = [("DequantizeLinear", ["bq", "bs"], ["b"]), ("Conv", ["x", "w", "b"], ["y"])]
    held = {"bq": np.arange(4, dtype=np.int32) * 1000, "bs": F(1e-4)}
    return nodes, held, {"w": np.random.default_rng(4).normal(size=(4, 3, 3, 3)).astype(F)}


def test_models_that_do_not_belong_together_are_refused(build):
    _, quantized = two_layers(build)
    rng = np.random.default_rng(0)
    other = build([("MatMul", ["x", "w"], ["z"])], {"w": rng.normal(size=(6, 5)).astype(F)},
                  {"x": ["n", 3, 6, 6]})  # fmt: skip
    with pytest.raises(ModelError, match="no layer of the one"):
        correct_biases(quantized.ir, other.ir, batches(), "fast")
    wider = build([("Conv", ["x", "w"], ["y"])], {"w": rng.normal(size=(4, 3, 1, 1)).astype(F)},
                  {"x": ["n", 3, 6, 6]})  # fmt: skip
    with pytest.raises(ModelError, match="has a weight of shape"):
        correct_biases(quantized.ir, wider.ir, batches(), "fast")


@pytest.mark.parametrize("mode", ["fast", "full"])
def test_bad_data_is_refused(build, mode):
    original, quantized = two_layers(build)
    with pytest.raises(DataError, match="no batch of the size"):
        correct_biases(quantized.ir, original.ir, lambda: iter(()), mode)
    with pytest.raises(ModelError, match="NaN or infinite"):
        correct_biases(quantized.ir, original.ir, batches(X * F(np.nan)), mode)
