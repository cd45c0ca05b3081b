import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from fettle.core.errors import ModelError
from fettle.core.machine import Machine
from fettle.core.shelf import PASSES
from fettle.graph._dequantize import dequantized

F = np.float32
RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 64)).astype(F)


def weight(*shape):
    return RNG.normal(0, 0.1, shape).astype(F)


def kinds(model):
    return [node.op_type for node in model.graph.all_nodes()]


def both(graph, **knobs):
    """Return the weight-only form and what it is lowered to."""
    stored = PASSES.make("graph.weight_only", **knobs)(graph.ir)
    lowered = PASSES.make("graph.lower_ort_weight_only")(stored.clone())
    onnx.checker.check_model(ir.to_proto(lowered), full_check=True)
    return stored, lowered


def mlp(build):
    return build(
        [("MatMul", ["x", "w"], ["m"]), ("Add", ["m", "b"], ["h"]), ("Relu", ["h"], ["r"]),
         ("Gemm", ["r", "v"], ["y"], {"transB": 1})],
        {"w": weight(64, 32), "b": weight(32), "v": weight(16, 32)},
        {"x": ["n", 64]},
    )  # fmt: skip


@pytest.mark.parametrize("bits", [8, 4])
def test_linear_layers_compute_in_integers(build, run, bits):
    stored, lowered = both(mlp(build), bits=bits)
    assert kinds(lowered) == ["DynamicQuantizeMatMul", "Relu", "DynamicQuantizeMatMul"]
    expected, found = (run(m, {"x": X})["y"] for m in (stored, lowered))
    assert 0 < np.abs(found - expected).mean() < 0.03 * np.abs(expected).mean()


def test_int8_codes_are_kept_as_they_are(build):
    stored, lowered = both(mlp(build))
    before = stored.graph.initializers["w_quantized"].const_value.numpy()
    after = next(v for k, v in lowered.graph.initializers.items() if k.startswith("w_deq"))
    np.testing.assert_array_equal(after.const_value.numpy(), before)


def test_an_lstm_computes_in_integers_and_a_gru_in_float(build, run):
    graph = build(
        [("LSTM", ["x", "w", "r"], ["s"], {"hidden_size": 16}),
         ("Squeeze", ["s", "one"], ["t"]),
         ("GRU", ["t", "u", "v"], ["y"], {"hidden_size": 16})],
        {"w": weight(1, 64, 20), "r": weight(1, 64, 16), "one": np.array([1], np.int64),
         "u": weight(1, 48, 16), "v": weight(1, 48, 16)},
        {"x": [7, "n", 20]},
    )  # fmt: skip
    stored, lowered = both(graph)
    assert kinds(lowered) == ["DynamicQuantizeLSTM", "Squeeze", "GRU"]
    inputs = {"x": RNG.normal(size=(7, 3, 20)).astype(F)}
    expected, found = (run(m, inputs)["y"] for m in (stored, lowered))
    assert np.abs(found - expected).mean() < 0.03 * np.abs(expected).mean()


def test_a_convolution_gets_its_float_weight_back(build, run):
    graph = build([("Conv", ["x", "w"], ["y"])], {"w": weight(8, 4, 3, 3)}, {"x": ["n", 4, 6, 6]})
    stored, lowered = both(graph, convolutions=True)
    assert kinds(lowered) == ["Conv"]
    x = RNG.normal(size=(2, 4, 6, 6)).astype(F)
    expected, found = (run(m, {"x": x})["y"] for m in (stored, lowered))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_float_layers_stay_float(build):
    graph = build(
        [("MatMul", ["x", "w"], ["h"]), ("MatMul", ["h", "v"], ["y"]), ("Add", ["w", "w"], ["z"])],
        {"w": weight(64, 64), "v": weight(64, 16)},
        {"x": ["n", 64]},
        {"y": 1, "z": 1},
    )  # `w` is read by Add too, so it is no weight
    assert kinds(both(graph)[1]) == ["MatMul", "DynamicQuantizeMatMul", "Add"]


def test_layers_with_quantized_inputs_are_for_another_lowering(build):
    graph = build(
        [("QuantizeLinear", ["x", "s", "z"], ["q"]), ("DequantizeLinear", ["q", "s", "z"], ["d"]),
         ("DequantizeLinear", ["w", "t"], ["e"], {"axis": 1}), ("MatMul", ["d", "e"], ["y"])],
        {"s": np.array(0.03, F), "z": np.array(0, np.int8), "t": np.full(16, 0.01, F),
         "w": RNG.integers(-127, 128, (64, 16)).astype(np.int8)},
        {"x": ["n", 64]},
    )  # fmt: skip
    with pytest.raises(ModelError, match=r"graph\.lower_ort_weight_only.*has none"):
        PASSES.make("graph.lower_ort_weight_only")(graph.ir)


@pytest.mark.parametrize(
    ("codes", "scale", "zero", "attributes"),
    [
        (np.int8, (), (), {}),
        (np.uint8, (6,), (6,), {"axis": 1}),
        (np.int8, (4,), None, {"axis": 0}),
        (np.int8, (4, 3), (4, 3), {"axis": 1, "block_size": 2}),
        (np.int8, (2, 6), None, {"axis": 0, "block_size": 3}),  # 3 doesn't divide 4
    ],
)
def test_unpacking_is_what_the_operator_computes(codes, scale, zero, attributes):
    info = np.iinfo(codes)
    held = {
        "q": RNG.integers(info.min, info.max, (4, 6)).astype(codes),
        "s": np.asarray(RNG.uniform(0.01, 0.1, scale), F),
    }
    if zero is not None:
        held["z"] = np.asarray(RNG.integers(0, 9, zero)).astype(codes)
    node = onnx.helper.make_node("DequantizeLinear", list(held), ["y"], **attributes)
    tensors = [onnx.numpy_helper.from_array(v, k) for k, v in held.items()]
    output = onnx.helper.make_tensor_value_info("y", 1, [4, 6])
    graph = onnx.helper.make_graph([node], "g", [], [output], tensors)
    opsets = [onnx.helper.make_opsetid("", 21)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    found = dequantized(next(iter(ir.from_proto(model).graph)))
    if attributes.get("block_size") == 3:
        wide = np.repeat(held["s"], 3, 0)[:4]
        expected = held["q"].astype(F) * wide
    else:
        expected = ReferenceEvaluator(model).run(None, {})[0]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("arch", "isa", "expected"),
    [("x86_64", ("avx512_vnni",), True), ("x86_64", ("avx2",), False), ("aarch64", (), True)],
)
def test_it_suits_processors_whose_products_do_not_saturate(arch, isa, expected):
    lowering = PASSES.load("graph.lower_ort_weight_only")
    assert lowering.suits(Machine("cpu", arch, isa, 1)) is expected
