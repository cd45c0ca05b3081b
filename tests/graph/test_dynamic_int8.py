import numpy as np
import onnx
import onnx_ir as ir
import pytest

from fettle.core.errors import ModelError
from fettle.core.shelf import PASSES

F = np.float32
RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 48)).astype(F)


def weight(*shape):
    return RNG.normal(0, 0.1, shape).astype(F)


def dynamic(graph, **knobs):
    model = PASSES.make("graph.dynamic_int8", **knobs)(graph.ir)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    return model


def kinds(model):
    return [node.op_type for node in model.graph.all_nodes()]


def array(model, name):
    return model.graph.initializers[name].const_value.numpy().astype(np.float64)


def quantized_input(x):
    """DynamicQuantizeLinear in float64: uint8 over a range that holds zero."""
    x = x.astype(np.float64)
    low, high = min(x.min(), 0), max(x.max(), 0)
    scale = (high - low) / 255
    zero = np.clip(np.rint(-low / scale), 0, 255)
    return (np.clip(np.rint(x / scale) + zero, 0, 255) - zero) * scale


def test_a_product_is_that_of_the_quantized_input_and_weight(build, run):
    graph = build([("MatMul", ["x", "w"], ["y"])], {"w": weight(48, 20)}, {"x": ["n", 48]})
    model = dynamic(graph)
    assert kinds(model) == ["DynamicQuantizeMatMul"]
    codes, scales = array(model, "w_quantized"), array(model, "w_scale")
    assert scales.shape == (20,)
    expected = quantized_input(X) @ (codes * scales)
    np.testing.assert_allclose(run(model, {"x": X})["y"], expected, atol=1e-5)


GEMMS = {
    "plain": ((48, 20), {}, (20,)),
    "transposed": ((20, 48), {"transB": 1}, (20,)),
    "beta": ((48, 20), {"beta": 0.5}, (20,)),
    "a bias for all": ((48, 20), {"beta": 2.0}, (1,)),
    "a bias for each row": ((48, 20), {}, (6, 1)),
    "no bias": ((48, 20), {}, None),
}


@pytest.mark.parametrize("name", GEMMS)
def test_a_gemm_keeps_its_bias(build, run, name):
    shape, attributes, bias = GEMMS[name]
    held = {"w": weight(*shape), **({"c": weight(*bias) * 10} if bias else {})}
    graph = build(
        [("Gemm", ["x", "w", *(["c"] if bias else [])], ["y"], attributes)], held, {"x": [6, 48]}
    )
    model = dynamic(graph)
    assert "DynamicQuantizeMatMul" in kinds(model)
    assert "Gemm" not in kinds(model)
    codes, scales = array(model, "w_quantized"), array(model, "w_scale")
    assert codes.shape == (48, 20)
    expected = quantized_input(X) @ (codes * scales)
    if bias:
        expected += attributes.get("beta", 1) * held["c"]
    np.testing.assert_allclose(run(model, {"x": X})["y"], expected, atol=1e-5)


@pytest.mark.parametrize("attributes", [{"alpha": 0.5}, {"transA": 1}])
def test_a_gemm_that_has_no_such_operator_keeps_int8_weights(build, run, attributes):
    graph = build([("Gemm", ["x", "w"], ["y"], attributes)], {"w": weight(48, 20)}, {"x": [48, 48]})
    model = dynamic(graph)
    assert kinds(model) == ["DequantizeLinear", "Gemm"]
    x = RNG.normal(size=(48, 48)).astype(F)
    assert np.abs(run(model, {"x": x})["y"] - run(graph.proto, {"x": x})["y"]).max() < 0.03


@pytest.mark.parametrize("swapped", [False, True])
def test_the_bias_behind_a_product_goes_into_it(build, run, swapped):
    operands = ["b", "m"] if swapped else ["m", "b"]
    graph = build(
        [("MatMul", ["x", "w"], ["m"]), ("Add", operands, ["y"])],
        {"w": weight(48, 20), "b": weight(20) * 10},
        {"x": ["n", 48]},
    )
    model = dynamic(graph)
    assert kinds(model) == ["DynamicQuantizeMatMul"]
    assert np.abs(run(model, {"x": X})["y"] - run(graph.proto, {"x": X})["y"]).max() < 0.05


def test_a_product_that_is_read_twice_keeps_its_sum_apart(build, run):
    graph = build(
        [("MatMul", ["x", "w"], ["m"]), ("Add", ["m", "b"], ["s"]), ("Mul", ["m", "s"], ["y"])],
        {"w": weight(48, 20), "b": weight(20)},
        {"x": ["n", 48]},
    )
    model = dynamic(graph)
    assert kinds(model) == ["DynamicQuantizeMatMul", "Add", "Mul"]
    assert np.abs(run(model, {"x": X})["y"] - run(graph.proto, {"x": X})["y"]).max() < 0.1


def test_a_constant_on_the_left_keeps_int8_weights(build):
    graph = build([("MatMul", ["w", "x"], ["y"])], {"w": weight(32, 48)}, {"x": [48, "n"]})
    assert kinds(dynamic(graph)) == ["DequantizeLinear", "MatMul"]


def lstm(build, **attributes):
    """Seven steps, 20 inputs, 16 hidden units, state in and out."""
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    return build(
        [
            ("LSTM", ["x", "w", "r", "b", "", "h", "c"], ["y", "hn", "cn"],
             {"hidden_size": 16, **attributes}),
        ],
        {
            "w": weight(directions, 64, 20),
            "r": weight(directions, 64, 16),
            "b": weight(directions, 128),
        },
        {"x": [7, "n", 20], "h": [directions, "n", 16], "c": [directions, "n", 16]},
        {"y": 1, "hn": 1, "cn": 1},
    )  # fmt: skip


def feed(directions):
    shapes = {"x": (7, 3, 20), "h": (directions, 3, 16), "c": (directions, 3, 16)}
    return {name: RNG.normal(size=shape).astype(F) for name, shape in shapes.items()}


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_an_lstm_with_state_has_a_scale_for_each_gate(build, run, direction):
    graph = lstm(build, direction=direction)
    model = dynamic(graph)
    assert kinds(model) == ["DynamicQuantizeLSTM"]
    directions = 2 if direction == "bidirectional" else 1
    assert array(model, "w_quantized").shape == (directions, 20, 64)
    assert array(model, "w_scale").shape == (directions, 64)
    inputs = feed(directions)
    expected, found = (run(m, inputs) for m in (graph.proto, model))
    for name in expected:
        assert 0 < np.abs(found[name] - expected[name]).max() < 0.02


def test_it_is_as_close_as_onnxruntimes_own(build, run, tmp_path):
    quantization = pytest.importorskip("onnxruntime.quantization")
    graph = lstm(build)
    own = graph.ir
    clean = onnx.ModelProto()
    clean.CopyFrom(graph.proto)
    quantization.quantize_dynamic(
        clean, tmp_path / "q.onnx", weight_type=quantization.QuantType.QInt8
    )
    theirs = onnx.load(tmp_path / "q.onnx")
    inputs = feed(1)
    expected = run(graph.proto, inputs)["y"]
    errors = [
        np.abs(run(m, inputs)["y"] - expected).mean()
        for m in (PASSES.make("graph.dynamic_int8")(own), theirs)
    ]
    assert errors[0] < 1.1 * errors[1]


def test_a_batch_first_lstm_keeps_int8_weights(build):
    graph = build(
        [("LSTM", ["x", "w", "r"], ["y"], {"hidden_size": 16, "layout": 1})],
        {"w": weight(1, 64, 20), "r": weight(1, 64, 16)},
        {"x": ["n", 7, 20]},
    )
    assert kinds(dynamic(graph)) == ["DequantizeLinear", "DequantizeLinear", "LSTM"]


def test_a_gru_keeps_int8_weights(build, run):
    graph = build(
        [("GRU", ["x", "w", "r"], ["y"], {"hidden_size": 16})],
        {"w": weight(1, 48, 20), "r": weight(1, 48, 16)},
        {"x": [7, "n", 20]},
    )
    model = dynamic(graph)
    assert kinds(model) == ["DequantizeLinear", "DequantizeLinear", "GRU"]
    x = RNG.normal(size=(7, 3, 20)).astype(F)
    assert np.abs(run(model, {"x": x})["y"] - run(graph.proto, {"x": x})["y"]).max() < 0.01


def test_convolutions_are_never_touched(build):
    nodes = [("Conv", ["x", "w"], ["y"])]
    graph = build(nodes, {"w": weight(8, 4, 3, 3)}, {"x": ["n", 4, 6, 6]})
    with pytest.raises(ModelError, match=r"graph\.dynamic_int8.*static"):
        dynamic(graph)


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_a_weight_that_is_no_number_is_refused(build, bad):
    broken = weight(48, 20)
    broken[0, 0] = bad
    with pytest.raises(ModelError, match=r"`w` holds (NaN|infinity)"):
        dynamic(build([("MatMul", ["x", "w"], ["y"])], {"w": broken}, {"x": ["n", 48]}))


@pytest.mark.parametrize("x", [np.zeros((1, 48), F), np.full((1, 48), 3, F), X[:1]])
def test_zeros_constants_and_one_sample_run(build, run, x):
    graph = build([("MatMul", ["x", "w"], ["y"])], {"w": weight(48, 20)}, {"x": ["n", 48]})
    found, plain = (run(m, {"x": x})["y"] for m in (dynamic(graph), graph.proto))
    assert np.abs(found - plain).max() < 0.1


@pytest.mark.parametrize("kind", ["product", "lstm"])
def test_openvino_reads_it(build, run, kind):
    openvino = pytest.importorskip("openvino")
    if kind == "lstm":
        graph, inputs = lstm(build), feed(1)
    else:
        held = {"w": weight(48, 20), "c": weight(20)}
        graph = build([("Gemm", ["x", "w", "c"], ["y"])], held, {"x": [6, 48]})
        inputs = {"x": X}
    core = openvino.Core()
    network = core.read_model(ir.to_proto(dynamic(graph)).SerializeToString())
    found = core.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(inputs)[0]
    expected = run(graph.proto, inputs)["y"]
    assert np.abs(found - expected).mean() < 0.02 * np.abs(expected).mean()


@pytest.mark.parametrize("transposed", [True, False])
def test_a_table_that_is_the_output_layers_weight_too_is_stored_once(build, run, transposed):
    """Written as a Gemm that transposes it, or behind a Transpose."""
    end = [("Gemm", ["h", "w"], ["y"], {"transB": 1})]
    if transposed:
        end = [("Transpose", ["w"], ["t"], {"perm": [1, 0]}), ("MatMul", ["h", "t"], ["y"])]
    graph = build(
        [("Cast", ["x"], ["ids"], {"to": onnx.TensorProto.INT64}),
         ("Gather", ["w", "ids"], ["h"]), *end],
        {"w": weight(40, 16)}, {"x": ["n"]},
    )  # fmt: skip
    model = dynamic(graph)
    assert "DynamicQuantizeMatMul" in kinds(model)
    codes = [v for v in model.graph.initializers.values() if v.dtype == ir.DataType.INT8]
    assert [value.shape for value in codes] == [(40, 16)]
    x = np.array([0, 39, 7], F)
    found, expected = (run(m, {"x": x})["y"] for m in (model, graph.proto))
    assert 0 < np.abs(found - expected).mean() < 0.03 * np.abs(expected).mean()
