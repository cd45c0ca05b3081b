import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from fettle.core.arrays import Batch
from fettle.core.context import Context
from fettle.core.errors import DataError, InputError, ModelError
from fettle.core.shelf import PASSES
from fettle.graph._quantized import activation_quantizers
from fettle.testing.fakes import Recorder

F = np.float32
IMAGE = {"x": ["n", 3, 8, 8]}


class Inputs:
    """A task that has calibration inputs and nothing else."""

    def __init__(self, **inputs):
        self.inputs = inputs

    def size(self, split):
        assert split == "calibrate"
        return len(next(iter(self.inputs.values())))

    def batches(self, split, batch_size):
        for start in range(0, self.size(split), batch_size):
            part = {k: v[start : start + batch_size] for k, v in self.inputs.items()}
            yield Batch(part, np.zeros(min(batch_size, self.size(split) - start)))


def tokens():
    return np.random.default_rng(2).normal(0, 1, (20, 7, 4)).astype(F)


def images(n=24, seed=0):
    return np.random.default_rng(seed).normal(0, 1, (n, 3, 8, 8)).astype(F)


def weights(**shapes):
    rng = np.random.default_rng(1)
    return {name: rng.normal(0, 0.3, shape).astype(F) for name, shape in shapes.items()}


def quantized(model, inputs=None, **knobs):
    task = Inputs(x=images()) if inputs is None else inputs
    return PASSES.make("graph.static_int8", **knobs)(getattr(model, "ir", model), task)


def integers(model):
    """Return the names of the float tensors that are quantized."""
    return {node.inputs[0].name for node in model.graph if node.op_type == "QuantizeLinear"}


def held(model, name):
    return model.graph.initializers[name].const_value.numpy()


def residual(build):
    """Conv → Relu → Conv → Add → Relu → pool → linear, as in a ResNet."""
    pads = {"pads": [1, 1, 1, 1]}
    return build(
        [
            ("Conv", ["x", "w1", "b1"], ["c1"], pads),
            ("Relu", ["c1"], ["r1"]),
            ("Conv", ["r1", "w2"], ["c2"], pads),
            ("Add", ["c2", "r1"], ["a"]),
            ("Relu", ["a"], ["r2"]),
            ("MaxPool", ["r2"], ["m"], {"kernel_shape": [2, 2], "strides": [2, 2]}),
            ("GlobalAveragePool", ["m"], ["g"]),
            ("Flatten", ["g"], ["f"]),
            ("Gemm", ["f", "w3", "b3"], ["y"], {"transB": 1}),
        ],
        weights(w1=(8, 3, 3, 3), b1=(8,), w2=(8, 8, 3, 3), w3=(5, 8), b3=(5,)),
        IMAGE,
    )


def test_a_residual_network_is_quantized_where_it_should_be(build, run):
    graph = residual(build)
    result = quantized(graph)
    onnx.checker.check_model(ir.to_proto(result), full_check=True)
    assert integers(result) == {"x", "r1", "c2", "r2", "m", "g", "f"}
    assert len(list(activation_quantizers(result.graph))) == 7
    scales = {n.inputs[0].name: n.inputs[1] for n in result.graph if n.op_type == "QuantizeLinear"}
    assert scales["m"] is scales["r2"]  # a pool moves what it gets
    assert scales["f"] is scales["g"]
    x = images(seed=5)
    found, expected = (run(m, {"x": x})["y"] for m in (result, graph.proto))
    assert np.abs(found - expected).mean() < 0.03 * np.abs(expected).mean()


def test_weights_follow_the_formula_in_float64(build):
    result = quantized(residual(build))
    for name, axes in (("w1", (1, 2, 3)), ("w3", (1,))):
        w = weights(w1=(8, 3, 3, 3), b1=(8,), w2=(8, 8, 3, 3), w3=(5, 8), b3=(5,))[name]
        w = w.astype(np.float64)
        scale = np.abs(w).max(axis=axes) / 127
        numbers, found = held(result, f"{name}_quantized"), held(result, f"{name}_scale")
        np.testing.assert_allclose(found, scale, rtol=1e-6)
        steps = w / found.astype(np.float64).reshape(-1, *(1 for _ in axes))
        np.testing.assert_array_equal(numbers, np.rint(steps).astype(np.int8))
        assert numbers.dtype == np.int8
        assert np.abs(numbers).max() == 127
        assert not held(result, f"{name}_zero_point").any()


def test_seven_bits_stay_within_63(build):
    result = quantized(residual(build), weight_bits=7)
    numbers = held(result, "w2_quantized")
    assert np.abs(numbers.astype(int)).max(axis=(1, 2, 3)).tolist() == [63] * 8


@pytest.mark.parametrize("activations", ["symmetric", "asymmetric"])
def test_activations_round_half_to_even_and_saturate(build, run, activations):
    """The integers that onnxruntime computes are those of the formula in float64."""
    graph = build([("MatMul", ["x", "w"], ["y"])], weights(w=(4, 3)), {"x": ["n", 4]})
    seen = np.linspace(-2, 3, 64, dtype=F).reshape(16, 4)
    result = quantized(graph, Inputs(x=seen), calibrator="minmax", activations=activations)
    quantize = next(n for n in result.graph if n.op_type == "QuantizeLinear")
    scale, zero = (quantize.inputs[i].const_value.numpy() for i in (1, 2))
    symmetric = activations == "symmetric"
    assert scale == pytest.approx(3 / 127 if symmetric else 5 / 255, rel=1e-6)
    assert (zero.dtype, int(zero)) == ((np.int8, 0) if symmetric else (np.uint8, 102))
    proto = ir.to_proto(result)
    kind = TensorProto.INT8 if symmetric else TensorProto.UINT8
    proto.graph.output.append(helper.make_tensor_value_info("x_quantized", kind, None))
    ties = (np.arange(-300, 300) + 0.5) * np.float64(scale)
    x = np.concatenate([ties, ties + 0.2 * scale]).astype(F).reshape(-1, 4)
    limits = np.iinfo(zero.dtype)
    expected = np.clip(np.rint(x.astype(F) / F(scale)) + int(zero), limits.min, limits.max)
    np.testing.assert_array_equal(run(proto, {"x": x})["x_quantized"], expected)


def test_transformers_keep_their_residual_sums_in_float(build, run):
    graph = build(
        [
            ("MatMul", ["x", "w1"], ["h"]),
            ("Add", ["h", "b1"], ["k"]),
            ("Add", ["k", "x"], ["s"]),
            ("LayerNormalization", ["s", "one"], ["n"]),
            ("MatMul", ["n", "w2"], ["f"]),
            ("Add", ["f", "n"], ["y"]),
        ],
        {**weights(w1=(4, 4), b1=(4,), w2=(4, 4)), "one": np.ones(4, F)},
        {"x": ["n", 7, 4]},
    )
    x = tokens()
    result = quantized(graph, Inputs(x=x))
    assert integers(result) == {"x", "n"}
    adds = [node for node in result.graph if node.op_type == "Add"]
    assert {value.name for node in adds for value in node.inputs} == {"h", "b1", "k", "x", "f", "n"}
    found, expected = (run(m, {"x": x})["y"] for m in (result, graph.proto))
    assert np.abs(found - expected).mean() < 0.02 * np.abs(expected).mean()


@pytest.mark.parametrize(("attention", "expected"), [("float", {"x"}), ("int8", {"x", "q", "t"})])
def test_products_of_activations_are_a_knob(build, attention, expected):
    graph = build(
        [
            ("MatMul", ["x", "w"], ["q"]),
            ("Transpose", ["q"], ["t"], {"perm": [0, 2, 1]}),
            ("MatMul", ["q", "t"], ["y"]),
        ],
        weights(w=(4, 4)),
        {"x": ["n", 7, 4]},
    )
    result = quantized(graph, Inputs(x=tokens()), attention=attention)
    assert integers(result) == expected


def test_concatenated_tensors_share_one_scale_and_depthwise_ones_have_one(build):
    graph = build(
        [
            ("Conv", ["x", "w1"], ["a"]),
            ("Conv", ["x", "w2"], ["b"], {"group": 3}),
            ("Concat", ["a", "b"], ["c"], {"axis": 1}),
            ("Conv", ["c", "w3"], ["y"]),
        ],
        weights(w1=(4, 3, 1, 1), w2=(3, 1, 1, 1), w3=(2, 7, 1, 1)),
        IMAGE,
    )
    result = quantized(graph, calibrator="minmax")
    scales = {n.inputs[0].name: n.inputs[1] for n in result.graph if n.op_type == "QuantizeLinear"}
    assert set(scales) == {"x", "a", "b", "c"}
    assert scales["a"] is scales["b"] is scales["c"]
    assert all(scale.const_value.numpy().size == 1 for scale in scales.values())


def test_a_head_of_movers_that_nobody_asks_for_stays_in_float(build):
    graph = build(
        [
            ("Conv", ["x", "w1"], ["a"]),
            ("Transpose", ["a"], ["t"], {"perm": [0, 2, 3, 1]}),
            ("Softmax", ["t"], ["y"]),
        ],
        weights(w1=(4, 3, 1, 1)),
        IMAGE,
    )
    assert integers(quantized(graph)) == {"x", "a"}


def test_outputs_are_never_quantized(build):
    graph = build(
        [("Conv", ["x", "w1"], ["a"]), ("Relu", ["a"], ["r"]), ("Conv", ["r", "w2"], ["y"])],
        weights(w1=(4, 3, 1, 1), w2=(2, 4, 1, 1)),
        IMAGE,
        {"a": TensorProto.FLOAT, "y": TensorProto.FLOAT},
    )
    result = quantized(graph)
    assert integers(result) == {"x", "r"}
    assert [value.name for value in result.graph.outputs] == ["a", "y"]


@pytest.mark.parametrize("group", [1, 3])
def test_transposed_convolutions_have_one_scale_an_output_channel(build, run, group):
    graph = build(
        [
            ("ConvTranspose", ["x", "w", "b"], ["h"], {"group": group}),
            ("Relu", ["h"], ["r"]),
            ("Conv", ["r", "v"], ["y"]),
        ],
        weights(w=(3, 6 // group, 3, 3), b=(6,), v=(2, 6, 1, 1)),
        IMAGE,
    )
    result = quantized(graph)
    assert held(result, "w_scale").shape == (6 // group,)
    found, expected = (run(m, {"x": images()})["y"] for m in (result, graph.proto))
    assert np.abs(found - expected).mean() < 0.04 * np.abs(expected).mean()


def test_a_weight_of_several_readers_is_held_once_or_kept(build, run):
    graph = build(
        [
            ("Gather", ["w", "rows"], ["e"]),
            ("MatMul", ["x", "w"], ["a"]),
            ("MatMul", ["x", "w"], ["b"]),
            ("Gemm", ["x", "w"], ["c"], {"transB": 1}),
            ("Sum", ["a", "b", "c", "e"], ["y"]),
        ],
        {**weights(w=(4, 4)), "rows": np.array([2], np.int64)},
        {"x": ["n", 4]},
    )
    x = tokens().reshape(-1, 4)
    result = quantized(graph, Inputs(x=x))
    assert sorted(n for n in result.graph.initializers if n.startswith("w")) == sorted(
        [
            "w",
            *(f"w{i}_{kind}" for i in ("", "_2") for kind in ("quantized", "scale", "zero_point")),
        ]
    )  # by columns once for both products, by rows once for the Gemm, in float for the Gather
    found, expected = (run(m, {"x": x})["y"] for m in (result, graph.proto))
    assert np.abs(found - expected).mean() < 0.02 * np.abs(expected).mean()


def test_channels_without_weights_keep_their_bias(build, run):
    """The int32 form of a bias is b / (s_x · s_w): a tiny weight scale must not overflow it."""
    held_ = weights(w1=(4, 3, 1, 1), b=(4,), w2=(2, 4, 1, 1))
    held_["w1"][0] = 0
    held_["w1"][1] = 1e-20
    held_["b"] = np.array([3, 3, 3, 3], F)
    first, last = ("Conv", ["x", "w1", "b"], ["a"]), ("Conv", ["r", "w2"], ["y"])
    graph = build([first, ("Relu", ["a"], ["r"]), last], held_, IMAGE)
    result = quantized(graph)
    assert (held(result, "w1_scale") > 0).all()
    lowered = PASSES.make("graph.lower_ort_x86")(ir.from_proto(ir.to_proto(result)))
    session = ort.InferenceSession(ir.to_proto(lowered).SerializeToString())
    expected = run(graph.proto, {"x": images()})["y"]
    for found in (run(result, {"x": images()})["y"], session.run(None, {"x": images()})[0]):
        assert np.abs(found - expected).mean() < 0.02 * np.abs(expected).mean()


@pytest.mark.parametrize(
    ("leave", "expected"),
    [
        ("Gemm_y", {"x", "r1", "c2", "r2", "m", "g"}),
        (" Conv_c2 , Gemm_*", {"x", "r1"}),
        ("Conv_*", {"f"}),
        ("Add_a", {"x", "r1", "c2", "f"}),
    ],
)
def test_layers_can_be_left_in_float(build, leave, expected):
    assert integers(quantized(residual(build), leave=leave)) == expected


def test_a_name_that_no_node_has(build):
    with pytest.raises(ModelError, match="has no such node; the nearest are Gemm_y"):
        quantized(residual(build), leave="Conv_c1,Gem_y")


def test_nothing_is_left_to_quantize(build):
    with pytest.raises(ModelError, match="found nothing"):
        quantized(residual(build), leave="*")


@pytest.mark.parametrize("calibrator", ["mse", "minmax", "percentile", "entropy"])
def test_constant_inputs_give_a_sound_scale(build, calibrator):
    graph = residual(build)
    result = quantized(graph, Inputs(x=np.zeros((1, 3, 8, 8), F)), calibrator=calibrator)
    scales = [q.scale for q in activation_quantizers(result.graph)]
    assert all(np.isfinite(scale) and scale > 0 for scale in scales)


def test_progress_and_the_number_of_examples(build):
    recorder = Recorder()
    made = PASSES.make("graph.static_int8", samples=10, batch_size=4)
    made.within(Context(progress=recorder))(residual(build).ir, Inputs(x=images()))
    assert [(bar.title, bar.total, bar.done) for bar in recorder.bars] == [("calibrate", 10, 10)]


def test_the_calibration_doesnt_depend_on_the_batches(build):
    results = [quantized(residual(build), batch_size=size, calibrator="minmax") for size in (3, 24)]
    a, b = ([q.scale for q in activation_quantizers(r.graph)] for r in results)
    np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ({"x": np.full((2, 3, 8, 8), np.nan, F)}, DataError, "holds NaN"),
        ({"x": images()[:, :2]}, ModelError, "can't run the model on this data"),
        ({"x": images()[:0]}, DataError, "more examples"),
        ({"x": images(), "y": images()[0]}, DataError, "batch first"),
        ({"z": images(), "y": images()}, DataError, "inputs are"),
        ({"x": np.full((2, 3, 8, 8), 3e38, F)}, ModelError, "becomes NaN or infinite"),
    ],
)
def test_data_that_doesnt_fit(build, inputs, error, message):
    with pytest.raises(error, match=message):
        quantized(residual(build), Inputs(**inputs))


def test_without_data(build):
    with pytest.raises(InputError, match="give a task"):
        PASSES.make("graph.static_int8")(residual(build).ir)


def test_a_quantized_model_is_refused(build):
    with pytest.raises(ModelError, match="quantized already"):
        quantized(quantized(residual(build)))


def test_nothing_to_quantize(build):
    with pytest.raises(ModelError, match=r"graph\.static_int8` found nothing"):
        quantized(build([("Relu", ["x"], ["y"])]))
