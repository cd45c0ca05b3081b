import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from fettle.core.errors import ModelError
from fettle.core.shelf import PASSES
from fettle.graph._affine import by_channel, by_group

F = np.float32
RNG = np.random.default_rng(0)
X = RNG.normal(size=(5, 48)).astype(F)


def weight(*shape):
    return RNG.normal(0, 0.1, shape).astype(F)


def quantized(graph, **knobs):
    model = PASSES.make("graph.weight_only", **knobs)(graph.ir)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    return model


def kinds(model):
    return [node.op_type for node in model.graph.all_nodes()]


def held(model):
    """Return the initializers by name, int4 as int8."""
    return {
        name: value.const_value.numpy().astype(np.int8)
        if value.dtype == ir.DataType.INT4
        else value.const_value.numpy()
        for name, value in model.graph.initializers.items()
    }


def test_int8_scales_and_codes_are_those_of_the_formula():
    array = weight(7, 33)
    codes, scales = by_channel(array, 0)
    exact = array.astype(np.float64)
    expected = np.abs(exact).max(1) / 127
    np.testing.assert_allclose(scales, expected, rtol=1e-6)
    assert codes.dtype == np.int8
    assert np.abs(codes).max(1).tolist() == [127] * 7  # each channel uses the whole range
    assert np.abs(codes * scales[:, None] - exact).max() <= expected.max() / 2 * 1.00001


def test_ties_go_to_the_even_code():
    codes, scales = by_channel(np.array([[0.5, 1.5, 2.5, -0.5, -1.5, 127]], F), 0)
    assert scales == 1
    assert codes.tolist() == [[0, 2, 2, 0, -2, 127]]


@pytest.mark.parametrize("tiny", [0.0, 1e-44])
def test_a_channel_of_zeros_has_scale_one(tiny):
    array = np.array([[tiny, 0, -tiny], [1, 2, 3]], F)
    codes, scales = by_channel(array, 0)
    assert scales[0] == 1
    assert not codes[0].any()
    codes, scales = by_group(np.full((32, 2), tiny, F), 0, 32)
    assert (scales == 1).all()
    assert not codes.any()


def squared_error(array, scale):
    """Of one group, in float64, rounding half to even into -8 … 7."""
    return np.square(np.clip(np.rint(array / scale), -8, 7) * scale - array).sum()


def test_the_scale_of_a_group_is_the_best_of_those_tried():
    array = RNG.standard_t(2, (64, 5)).astype(F)  # with outliers, which pay to be clipped
    codes, scales = by_group(array, 0, 32)
    assert scales.shape == (2, 5)
    assert codes.min() >= -8
    assert codes.max() <= 7
    better = 0
    for i in range(2):
        for j in range(5):
            group = array[32 * i : 32 * i + 32, j].astype(np.float64)
            plain = np.abs(group).max() / 7
            found = squared_error(group, np.float64(scales[i, j]))
            tried = [squared_error(group, plain * share) for share in np.arange(0.6, 1.001, 0.05)]
            assert found <= min(tried) * 1.0001
            better += found < 0.99 * squared_error(group, plain)
            expected = np.clip(np.rint(group / np.float64(scales[i, j])), -8, 7)
            assert (codes[32 * i : 32 * i + 32, j] == expected).mean() > 0.99
    assert better >= 8


def test_groups_run_along_the_axis_that_is_asked_for():
    array = weight(4, 64)
    codes, scales = by_group(array, 1, 32)
    turned, scales_turned = by_group(np.ascontiguousarray(array.T), 0, 32)
    np.testing.assert_array_equal(codes, turned.T)
    np.testing.assert_array_equal(scales, scales_turned.T)


def linear(build, op="MatMul", shape=(48, 32), **attributes):
    """A linear layer with its weight from the right."""
    return build([(op, ["x", "w"], ["y"], attributes)], {"w": weight(*shape)}, {"x": ["n", 48]})


LAYERS = {
    "MatMul": {},
    "Gemm": {"op": "Gemm", "alpha": 0.5},
    "Gemm transposed": {"op": "Gemm", "shape": (32, 48), "transB": 1},
}


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_computes_with_the_rounded_weight(build, run, name, bits):
    graph = linear(build, **LAYERS[name])
    model = quantized(graph, bits=bits, group=16)
    arrays = held(model)
    codes, scales = arrays["w_quantized"].astype(np.float64), arrays["w_scale"].astype(np.float64)
    transposed = "transB" in LAYERS[name]
    if bits == 8:
        rounded = codes * (scales[:, None] if transposed else scales)
    else:
        rounded = codes * np.repeat(scales, 16, axis=int(transposed))
    original = numpy_helper.to_array(graph.proto.graph.initializer[0])
    assert np.abs(rounded - original).max() < (0.002 if bits == 8 else 0.05)
    expected = X.astype(np.float64) @ (rounded.T if transposed else rounded)
    expected *= LAYERS[name].get("alpha", 1)
    np.testing.assert_allclose(run(model, {"x": X})["y"], expected, atol=1e-5)


def test_int4_is_packed_low_half_first(build):
    model = quantized(linear(build, shape=(48, 32)), bits=4, group=16)
    tensor = next(t for t in ir.to_proto(model).graph.initializer if t.name == "w_quantized")
    assert tensor.data_type == TensorProto.INT4
    flat = held(model)["w_quantized"].reshape(-1)
    packed = np.frombuffer(tensor.raw_data, np.uint8)
    assert packed.size == flat.size // 2
    np.testing.assert_array_equal(packed & 15, flat[0::2] & 15)
    np.testing.assert_array_equal(packed >> 4, flat[1::2] & 15)


def test_int4_agrees_with_the_reference_evaluator(build, run):
    model = quantized(linear(build), bits=4, group=16)
    expected = ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": X})[0]
    np.testing.assert_allclose(run(model, {"x": X})["y"], expected, atol=1e-5)


@pytest.mark.parametrize(("group", "expected"), [(128, 16), (32, 16), (16, 16)])
def test_a_group_shrinks_until_it_divides_the_layer(build, group, expected):
    model = quantized(linear(build), bits=4, group=group)  # 48 = 3 · 16
    node = next(n for n in model.graph if n.op_type == "DequantizeLinear")
    assert node.attributes["block_size"].as_int() == expected
    assert held(model)["w_scale"].shape == (48 // expected, 32)


def test_a_length_that_no_group_divides_stays_at_8_bits(build, run):
    graph = build([("MatMul", ["x", "w"], ["y"])], {"w": weight(50, 32)}, {"x": ["n", 50]})
    model = quantized(graph, bits=4)
    assert model.graph.initializers["w_quantized"].dtype == ir.DataType.INT8
    x = RNG.normal(size=(3, 50)).astype(F)
    difference = run(model, {"x": x})["y"] - run(graph.proto, {"x": x})["y"]
    assert 0 < np.abs(difference).max() < 0.02


def test_a_constant_on_the_left_has_its_channels_in_rows(build, run):
    graph = build([("MatMul", ["w", "x"], ["y"])], {"w": weight(32, 48)}, {"x": [48, "n"]})
    model = quantized(graph)
    assert held(model)["w_scale"].shape == (32,)
    found, plain = (run(m, {"x": X.T})["y"] for m in (model, graph.proto))
    assert np.abs(found - plain).max() < 0.02


@pytest.mark.parametrize("bits", [8, 4])
def test_a_shared_weight_is_stored_once(build, run, bits):
    graph = build(
        [("MatMul", ["x", "w"], ["a"]), ("Relu", ["a"], ["r"]), ("MatMul", ["r", "w"], ["y"])],
        {"w": weight(48, 48)},
        {"x": ["n", 48]},
    )
    model = quantized(graph, bits=bits)
    assert kinds(model).count("DequantizeLinear") == 1
    assert set(model.graph.initializers) == {"w_quantized", "w_scale"}
    found, plain = (run(m, {"x": X})["y"] for m in (model, graph.proto))
    assert np.abs(found - plain).mean() < 0.1 * np.abs(plain).mean() * (1 if bits == 8 else 3)


def test_what_also_reads_a_weight_keeps_it_in_float(build):
    graph = build(
        [("MatMul", ["x", "w"], ["a"]), ("Add", ["a", "w"], ["y"])],
        {"w": weight(48, 48)},
        {"x": [48, 48]},
    )
    with pytest.raises(ModelError, match=r"graph\.weight_only.*found no float32 weights"):
        quantized(graph)


def tied(build):
    """An embedding whose table is the output layer's weight too."""
    return build(
        [
            ("Cast", ["x"], ["ids"], {"to": TensorProto.INT64}),
            ("Gather", ["w", "ids"], ["h"]),
            ("MatMul", ["h", "v"], ["i"]),
            ("Gemm", ["i", "w"], ["y"], {"transB": 1}),
        ],
        {"w": weight(40, 16), "v": np.eye(16, dtype=F)[:, :15] @ np.eye(15, 16, dtype=F)},
        {"x": ["n"]},
    )


def test_a_tied_embedding_is_stored_once_and_looked_up_in_int8(build, run):
    graph = tied(build)
    model = quantized(graph)
    assert model.graph.initializers["w_quantized"].dtype == ir.DataType.INT8
    assert "w" not in model.graph.initializers
    assert kinds(model).count("DequantizeLinear") == 2  # of the layers, not of the table
    gathers = [n for n in model.graph if n.op_type == "Gather"]
    assert gathers[0].inputs[0].name == "w_quantized"
    x = np.array([0, 39, 7], F)
    difference = run(model, {"x": x})["y"] - run(graph.proto, {"x": x})["y"]
    assert 0 < np.abs(difference).max() < 0.01


def test_embeddings_can_be_left_alone(build):
    model = quantized(tied(build), embeddings=False)
    assert {"w", "v_quantized"} < set(model.graph.initializers)  # read by others: left in float


def test_convolutions_only_on_request(build, run):
    nodes = [("Conv", ["x", "w"], ["y"])]
    graph = build(nodes, {"w": weight(8, 4, 3, 3)}, {"x": ["n", 4, 6, 6]})
    with pytest.raises(ModelError, match="convolutions=True"):
        quantized(graph)
    model = quantized(graph, convolutions=True)
    assert held(model)["w_scale"].shape == (8,)
    x = RNG.normal(size=(2, 4, 6, 6)).astype(F)
    assert np.abs(run(model, {"x": x})["y"] - run(graph.proto, {"x": x})["y"]).max() < 0.02


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_weight_that_is_no_number_is_refused_by_name(build, bad):
    graph = linear(build)
    tensor = graph.proto.graph.initializer[0]
    array = numpy_helper.to_array(tensor).copy()
    array[3, 3] = bad
    tensor.CopyFrom(numpy_helper.from_array(array, "w"))
    with pytest.raises(ModelError, match=r"`w` holds (NaN|infinity)"):
        quantized(graph)


def test_a_small_layer_is_not_worth_it(build):
    with pytest.raises(ModelError, match="found no float32 weights"):
        quantized(build([("MatMul", ["x", "w"], ["y"])], {"w": weight(4, 4)}))


def test_weights_behind_moves_of_constants_are_computed_first(build, run):
    graph = build(
        [
            ("Constant", [], ["c"], {"value": numpy_helper.from_array(weight(16, 48))}),
            ("Transpose", ["c"], ["t"]),
            ("Concat", ["t", "d"], ["w"], {"axis": 1}),
            ("MatMul", ["x", "w"], ["y"]),
        ],
        {"d": weight(48, 16)},
        {"x": ["n", 48]},
    )
    model = quantized(graph)
    assert kinds(model) == ["DequantizeLinear", "MatMul"]
    difference = run(model, {"x": X})["y"] - run(graph.proto, {"x": X})["y"]
    assert np.abs(difference).max() < 0.02


def old(opset, ir_version):
    """A model of another time: constants are listed among the inputs, or its opset is old."""
    tensor = numpy_helper.from_array(weight(48, 16), "w")
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [5, 48])]
    if ir_version < 4:
        inputs.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [48, 16]))
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [5, 16])]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Relu", ["m"], ["y"])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [tensor])
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)


@pytest.mark.parametrize(("opset", "ir_version"), [(8, 3), (11, 6), (15, 8), (21, 10)])
@pytest.mark.parametrize("bits", [8, 4])
def test_old_models_are_raised(run, opset, ir_version, bits):
    proto = old(opset, ir_version)
    model = PASSES.make("graph.weight_only", bits=bits)(ir.from_proto(proto))
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    assert [value.name for value in model.graph.inputs] == ["x"]
    found, plain = (run(m, {"x": X})["y"] for m in (model, proto))
    assert np.abs(found - plain).max() < (0.02 if bits == 8 else 0.4)


def test_large_constants_do_not_pass_through_the_converter(monkeypatch, run):
    """They stay out of protobuf, which can't pass 2 GiB, and come back as they were."""
    from fettle.graph import _opset

    monkeypatch.setattr(_opset, "_LARGE", 100)
    seen = []
    convert = onnx.version_converter.convert_version

    def watched(proto, version):
        seen.append([t.name for t in proto.graph.initializer])
        return convert(proto, version)

    monkeypatch.setattr(onnx.version_converter, "convert_version", watched)
    proto = old(11, 6)
    raised = _opset.raised(ir.from_proto(proto), 13)
    assert seen == [[]]
    assert raised.opset_imports[""] == 13
    np.testing.assert_array_equal(run(raised, {"x": X})["y"], run(proto, {"x": X})["y"])


def branches():
    """An If whose branches both multiply by constants of their own, called alike."""
    bodies = []
    for name in ("then", "else"):
        tensor = numpy_helper.from_array(weight(48, 16), "w")
        node = helper.make_node("MatMul", ["x", "w"], [f"{name}_y"])
        out = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, None)
        bodies.append(helper.make_graph([node], name, [], [out], [tensor]))
    node = helper.make_node("If", ["c"], ["y"], then_branch=bodies[0], else_branch=bodies[1])
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 48]),
        helper.make_tensor_value_info("c", TensorProto.BOOL, []),
    ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 16])
    graph = helper.make_graph([node], "g", inputs, [output])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


@pytest.mark.parametrize("condition", [True, False])
def test_branches_keep_their_own_weights(run, condition):
    proto = branches()
    model = PASSES.make("graph.weight_only")(ir.from_proto(proto))
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    feed = {"x": X, "c": np.array(condition)}
    found, plain = (run(m, feed)["y"] for m in (model, proto))
    assert np.abs(found - plain).max() < 0.02


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_recurrent_layers_have_a_scale_for_each_gate_and_stay_at_8_bits(build, run, op, bits):
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op] * 16
    graph = build(
        [(op, ["x", "w", "r"], ["y"], {"hidden_size": 16, "direction": "bidirectional"})],
        {"w": weight(2, gates, 20), "r": weight(2, gates, 16)},
        {"x": [7, "n", 20]},
    )
    model = quantized(graph, bits=bits)
    assert model.graph.initializers["w_quantized"].dtype == ir.DataType.INT8
    assert held(model)["w_scale"].shape == (gates,)
    x = RNG.normal(size=(7, 3, 20)).astype(F)
    difference = run(model, {"x": x})["y"] - run(graph.proto, {"x": x})["y"]
    assert 0 < np.abs(difference).max() < 0.01


@pytest.mark.parametrize("bits", [8, 4])
def test_openvino_computes_the_same(build, run, bits):
    openvino = pytest.importorskip("openvino")
    model = quantized(linear(build), bits=bits, group=16)
    content = ir.to_proto(model).SerializeToString()
    core = openvino.Core()
    pinned = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
    compiled = core.compile_model(core.read_model(content), "CPU", pinned)
    found = compiled({"x": X})[0]
    np.testing.assert_allclose(found, run(model, {"x": X})["y"], atol=1e-4)


def test_the_file_shrinks_as_it_should(build):
    graph = build([("MatMul", ["x", "w"], ["y"])], {"w": weight(512, 256)}, {"x": ["n", 512]})
    sizes = {bits: len(ir.to_proto(quantized(graph, bits=bits)).SerializeToString())
             for bits in (8, 4)}  # fmt: skip
    plain = graph.proto.ByteSize()
    assert sizes[8] < 0.26 * plain
    assert sizes[4] < 0.16 * plain  # 4 bits and 32 / 32 bits of scale: 5 of 32


def test_what_is_quantized_already_is_refused(build):
    with pytest.raises(ModelError, match=r"graph\.weight_only"):
        PASSES.make("graph.weight_only")(quantized(linear(build)))


def test_onnxruntime_optimizes_it_without_changing_it(build, run):
    model = quantized(linear(build), bits=4, group=16)
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
    np.testing.assert_allclose(session.run(None, {"x": X})[0], run(model, {"x": X})["y"], atol=2e-2)
