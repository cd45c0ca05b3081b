import numpy as np
import onnx
import onnx_ir as ir
import pytest

from fettle.core.errors import ModelError
from fettle.core.machine import Machine
from fettle.core.shelf import PASSES

F = np.float32
S = F(0.04)
RNG = np.random.default_rng(0)
X = RNG.normal(0, 3, (64, 8)).astype(F)


def lowered(graph, name="graph.lower_ort_x86_7bit"):
    result = PASSES.make(name)(graph.ir)
    onnx.checker.check_model(ir.to_proto(result), full_check=True)
    return result


def linear(build, weight, scale=0.01):
    """x (n, 8) → y (n, 8); weights (8 inputs, 8 outputs)."""
    held = {"s": S, "z": np.array(0, np.int8), "w": weight, "u": np.zeros(8, np.int8),
            "t": np.full(8, scale, F)}  # fmt: skip
    return build(
        [("QuantizeLinear", ["x", "s", "z"], ["q"]), ("DequantizeLinear", ["q", "s", "z"], ["a"]),
         ("DequantizeLinear", ["w", "t", "u"], ["b"], {"axis": 1}), ("MatMul", ["a", "b"], ["y"])],
        held, inputs={"x": ["n", 8]},
    )  # fmt: skip


def saturating(activations, weights):
    """u8 · s8 as a processor without VNNI does it: pairs are added in 16 bits (vpmaddubsw)."""
    a, w = activations.astype(np.int64), weights.astype(np.int64)
    products = a[:, :, None] * w[None]  # n, inputs, outputs
    pairs = products[:, 0::2] + products[:, 1::2]
    return np.clip(pairs, -(2**15), 2**15 - 1).sum(1)


def parts(model):
    layer = next(node for node in model.graph if node.op_type == "MatMul")
    weight = layer.inputs[1].producer()
    return [value.const_value.numpy() for value in weight.inputs[:2]]


def test_the_worst_sums_of_pairs_fit_into_16_bits():
    worst = np.full((1, 2), 255, np.uint8)
    for sign in (-1, 1):
        weights = np.full((2, 1), sign * 64, np.int8)
        assert saturating(worst, weights) == sign * 255 * 64 * 2
        over = np.full((2, 1), sign * 127, np.int8)
        assert saturating(worst, over) != sign * 255 * 127 * 2  # what it is there for


def test_weights_are_halved_to_the_nearest(build):
    weight = RNG.integers(-127, 128, (8, 8)).astype(np.int8)
    weight[0, 0], weight[0, 1] = 127, -128
    numbers, scale = parts(lowered(linear(build, weight)))
    assert numbers.dtype == np.int8
    assert np.abs(numbers.astype(int)).max() <= 64
    np.testing.assert_array_equal(scale, np.full(8, 0.02, F))
    exact = weight.astype(float) * 0.01
    assert np.abs(numbers * 0.02 - exact).max() <= 0.01 + 1e-6


def test_what_a_saturating_processor_computes_is_right(build, run):
    weight = np.full((8, 8), 127, np.int8)
    graph = linear(build, weight)
    seven, eight = lowered(graph), lowered(graph, "graph.lower_ort_x86")
    x = np.full((1, 8), 127 * S, F)  # the largest activation: 255 as uint8
    expected = run(seven, {"x": x})["y"]
    codes = np.clip(np.rint(x / S) + 128, 0, 255).astype(np.uint8)
    for model, right in ((seven, True), (eight, False)):
        numbers, scale = parts(model)
        total = saturating(codes, numbers) - 128 * numbers.astype(int).sum(0)
        found = total * (S * scale)
        assert np.allclose(found, expected, rtol=0.02) is right


def test_small_weights_are_kept(build):
    weight = RNG.integers(-64, 65, (8, 8)).astype(np.int8)
    numbers, scale = parts(lowered(linear(build, weight)))
    np.testing.assert_array_equal(numbers, weight)
    np.testing.assert_array_equal(scale, np.full(8, 0.01, F))


def test_the_activations_are_unsigned(build, run):
    weight = RNG.integers(-127, 128, (8, 8)).astype(np.int8)
    graph = linear(build, weight)
    result = lowered(graph)
    quantize = next(node for node in result.graph if node.op_type == "QuantizeLinear")
    assert quantize.inputs[2].const_value.numpy().dtype == np.uint8
    found, expected = (run(m, {"x": X})["y"] for m in (result, graph.proto))
    assert np.abs(found - expected).max() <= 8 * 127 * S * 0.01 + 1e-4  # half a step a weight


def test_a_float_model_is_refused(build):
    with pytest.raises(ModelError, match="quantize it first"):
        lowered(build([("Relu", ["x"], ["y"])]))


@pytest.mark.parametrize(
    ("arch", "isa", "expected"),
    [("x86_64", ("avx2",), True), ("x86_64", ("avx512_vnni",), False), ("aarch64", (), False)],
)
def test_it_suits_x86_without_vnni(arch, isa, expected):
    cls = PASSES.load("graph.lower_ort_x86_7bit")
    assert cls.suits(Machine("cpu", arch, isa, 1)) is expected


def test_a_transposed_weight_is_halved_too(build, run):
    weight = RNG.integers(-127, 128, (8, 8)).astype(np.int8)  # outputs, inputs
    weight[0, 0] = 127
    scale = RNG.uniform(0.001, 0.02, 8).astype(F)
    held = {"s": S, "z": np.array(0, np.int8), "w": weight, "t": scale}
    graph = build(
        [("QuantizeLinear", ["x", "s", "z"], ["q"]), ("DequantizeLinear", ["q", "s", "z"], ["a"]),
         ("DequantizeLinear", ["w", "t"], ["b"], {"axis": 0}),
         ("Transpose", ["b"], ["c"], {"perm": [1, 0]}), ("MatMul", ["a", "c"], ["y"])],
        held, inputs={"x": ["n", 8]},
    )  # fmt: skip
    numbers, scales = parts(lowered(graph))
    np.testing.assert_array_equal(scales, 2 * scale)
    assert np.abs(numbers.astype(int)).max() <= 64
    assert np.abs(2 * numbers.astype(int) - weight.T).max() <= 1
