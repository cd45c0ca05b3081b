import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from fettle.search._kernels import kernels_of

SHAPES = {"x": (2, 3, 8, 8)}


def split(path, batch=2):
    return kernels_of(onnx.load(path), {"x": (batch, 3, 8, 8)})


def run(model, feeds):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options)
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def alone(kernel):
    """Return a kernel as a model of its own."""
    graph = helper.make_graph(
        kernel.nodes,
        "kernel",
        [helper.make_tensor_value_info(t.name, t.kind, t.shape) for t in kernel.inputs],
        [helper.make_tensor_value_info(t.name, t.kind, None) for t in kernel.outputs],
        list(kernel.weights.values()),
    )
    opsets = [helper.make_opsetid(*opset) for opset in kernel.opsets]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def one_after_the_other(kernels, feeds):
    values = dict(feeds)
    for kernel in kernels:
        values |= run(alone(kernel), {t.name: values[t.name] for t in kernel.inputs})
    return values


@pytest.mark.parametrize("quantized", [False, True])
def test_the_kernels_in_turn_compute_what_the_whole_does(residual, quantized):
    path = residual(blocks=2, quantized=quantized)
    feeds = {"x": np.random.default_rng(0).normal(size=SHAPES["x"]).astype(np.float32)}
    whole = run(onnx.load(path), feeds)
    parts = one_after_the_other(split(path), feeds)
    for name, expected in whole.items():
        np.testing.assert_allclose(parts[name], expected, rtol=1e-5, atol=1e-5)


def test_a_kernel_holds_what_is_fused_into_its_convolution(residual):
    kernels = split(residual())
    assert [k.op for k in kernels] == ["Conv", "Conv", "Conv", "GlobalAveragePool", "Gemm"]
    assert [n.op_type for n in kernels[2].nodes] == ["Conv", "Add", "Relu"]
    assert len(kernels[2].inputs) == 2


def test_integers_cross_where_the_graph_is_quantized(residual):
    first, inner, last, pool, head = (
        k for k in split(residual(quantized=True)) if k.op != "QuantizeLinear"
    )
    assert [n.op_type for n in inner.nodes if n.op_type != "DequantizeLinear"] == [
        "Conv", "Relu", "QuantizeLinear"]  # fmt: skip
    assert {t.kind for t in inner.inputs} == {TensorProto.INT8}
    assert [len(t.coding) for t in inner.inputs] == [2]
    assert last.op == "Conv"
    assert {tensor.kind for tensor in first.outputs} == {TensorProto.INT8, TensorProto.FLOAT}
    assert pool.op == "GlobalAveragePool"
    assert head.inputs[0].shape == (2, 8)


def test_alike_kernels_share_a_key_whatever_they_are_called_and_hold(residual):
    deep = [k.key for k in split(residual(blocks=3))]
    assert len(deep) == 9
    # block0 reads the stem as the others read a block: their sums are alike
    assert len(set(deep)) == 5


@pytest.mark.parametrize("other", [{"channels": 16}, {"quantized": True}])
def test_other_shapes_and_types_have_other_keys(residual, other):
    plain = {k.key for k in split(residual())}
    changed = {k.key for k in split(residual(name="other.onnx", **other))}
    assert not plain & changed


def test_the_batch_is_part_of_the_key(residual):
    path = residual()
    assert not {k.key for k in split(path, 1)} & {k.key for k in split(path, 2)}


def test_a_kernel_says_what_it_is(residual):
    kernel = split(residual())[2]
    assert str(kernel).endswith("Conv+Add+Relu on 2x8x8x8 2x8x8x8")
    assert kernel.bytes == 4 * (8 * 8 * 9 + 8)


def attention():
    """Queries, keys and values of three products, then softmax between two products."""
    make = helper.make_node
    nodes = [
        *(make("MatMul", ["x", f"w{i}"], [i], i) for i in "qkv"),
        make("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
        make("MatMul", ["q", "kt"], ["s"], "scores"),
        make("Softmax", ["s"], ["p"]),
        make("MatMul", ["p", "v"], ["a"], "mix"),
        make("MatMul", ["a", "wo"], ["y"], "out"),
    ]
    held = [helper.make_tensor(f"w{i}", TensorProto.FLOAT, [4, 4], np.ones(16)) for i in "qkvo"]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 6, 4])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 6, 4])
    graph = helper.make_graph(nodes, "g", [given], [out], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_both_products_of_an_attention_are_one_kernel():
    kernels = kernels_of(attention(), {"x": (2, 6, 4)})
    assert [k.name for k in kernels] == ["q", "k", "v", "scores", "out"]
    assert [n.op_type for n in kernels[3].nodes] == ["MatMul", "Softmax", "MatMul"]


def test_shapes_told_by_the_graph_are_constants():
    make = helper.make_node
    nodes = [
        make("Shape", ["x"], ["dims"]),
        make("Gather", ["dims", "zero"], ["n"]),
        make("Concat", ["n", "rest"], ["to"], axis=0),
        make("Relu", ["x"], ["r"]),
        make("Reshape", ["r", "to"], ["y"]),
    ]
    held = [
        helper.make_tensor("zero", TensorProto.INT64, [1], [0]),
        helper.make_tensor("rest", TensorProto.INT64, [1], [-1]),
    ]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2, 3])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [given], [out], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (kernel,) = kernels_of(model, {"x": (4, 2, 3)})
    x = np.random.default_rng(0).normal(size=(4, 2, 3)).astype(np.float32)
    np.testing.assert_array_equal(run(alone(kernel), {"x": x})["y"], np.maximum(x, 0).reshape(4, 6))


def test_weights_that_a_caller_may_replace_are_told_apart(residual):
    model = onnx.load(residual())
    fixed = kernels_of(model, SHAPES)
    for tensor in model.graph.initializer:
        model.graph.input.append(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    loose = kernels_of(model, SHAPES)
    assert [len(k.inputs) for k in loose] == [len(k.inputs) for k in fixed]
    assert all(k.loose for k in loose)
    assert not {k.key for k in fixed} & {k.key for k in loose}
