"""What each layer of onnxruntime really computes in, read from the graph as it optimized it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx
from onnx import TensorProto

from fettle.runtimes import _graphs
from fettle.runtimes._runtime import LayerPrecision

_NAMES: dict[int, str] = {
    TensorProto.FLOAT: "f32",
    TensorProto.FLOAT16: "f16",
    TensorProto.BFLOAT16: "bf16",
    TensorProto.DOUBLE: "f64",
    TensorProto.INT8: "int8",
    TensorProto.UINT8: "int8",
    TensorProto.INT4: "int4",
    TensorProto.UINT4: "int4",
    TensorProto.INT64: "i64",
    TensorProto.INT32: "i32",
    TensorProto.BOOL: "boolean",
}
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
_INTEGER_MARKS = ("QLinear", "QGemm", "QAttention", "Integer", "DynamicQuantize")
_INT8_ACTIVATIONS = 4  # `accuracy_level` of MatMulNBits: inputs are quantized too
_CONVERSIONS = {"DynamicQuantizeLinear", "DequantizeLinear"}
_INDEXES = {"Shape", "Size", "NonZero", "ArgMax", "ArgMin"}
_TRUTHS = {"Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Not", "And", "Or", "IsNaN"}
_BLOCKED = "_nchwc"  # what onnxruntime appends to the output's name, for a convolution it reordered
_ALWAYS = (
    (_TRUTHS, int(TensorProto.BOOL)),
    (_INDEXES, int(TensorProto.INT64)),
    ({"DynamicQuantizeLinear"}, int(TensorProto.UINT8)),
    ({"MatMulInteger", "ConvInteger"}, int(TensorProto.INT32)),
)
_DECIDING = {  # which input's type the output has
    "QuantizeLinear": 2,
    "DequantizeLinear": 1,
    "Gather": 0,
    "GatherElements": 0,
    "Where": 1,
    "QLinearConv": 7,
    "QLinearMatMul": 7,
}


def with_names(model: onnx.ModelProto) -> bool:
    """Name the nodes that have no name; say whether there were any."""
    unnamed = [node for node in _graphs.nodes(model.graph) if not node.name]
    for index, node in enumerate(unnamed):
        node.name = f"{node.op_type}_{index}"
    return bool(unnamed)


def layers_in(
    optimized: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]
) -> list[LayerPrecision]:
    """Return each node's precision and first output's shape.

    Args:
        optimized: the graph that runs.
        shapes: of the tensors of the graph as it was given, by name.
    """
    types: dict[str, int] = {}
    return list(_layers(optimized.graph, types, {**shapes, **_shapes(optimized.graph)}))


def shapes_in(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Return the shapes that ONNX infers, -1 for what is free; weights needn't be there.

    Under the names of tensors, and of the nodes that make them: an engine that changes the layout
    of a tensor renames it.
    """
    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    except Exception:  # operators of other domains, or too large a graph: no shape is no fault
        graph = model.graph
    found = _shapes(graph)
    by_node = {n.name: found[n.output[0]] for n in graph.node if n.output and n.output[0] in found}
    return {**by_node, **found}


def _layers(
    graph: onnx.GraphProto, types: dict[str, int], shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[LayerPrecision]:
    types.update({t.name: t.data_type for t in graph.initializer})
    declared = (*graph.input, *graph.value_info, *graph.output)
    types.update({v.name: v.type.tensor_type.elem_type for v in declared})
    for node in graph.node:
        made = _type_made(node, types)
        for name in node.output:
            types.setdefault(name, made)
        yield LayerPrecision(node.name, node.op_type, _precision(node, types), _shape(node, shapes))
        for inner in _graphs.inner_graphs(node):
            yield from _layers(inner, types, {**shapes, **_shapes(inner)})


def _precision(node: onnx.NodeProto, types: Mapping[str, int]) -> str:
    if node.op_type not in _CONVERSIONS and any(mark in node.op_type for mark in _INTEGER_MARKS):
        return "int8"
    if node.op_type == "MatMulNBits":
        level = next((a.i for a in node.attribute if a.name == "accuracy_level"), 0)
        return "int8" if level == _INT8_ACTIVATIONS else _name(types.get(node.input[0], 0))
    if node.op_type in _TRUTHS or not node.output:
        return _name(next((types.get(name, 0) for name in node.input if name), 0))
    return _name(types.get(node.output[0], TensorProto.FLOAT))


def _type_made(node: onnx.NodeProto, types: Mapping[str, int]) -> int:
    """Return the type of a node's first output, which onnxruntime doesn't always write down."""
    told = _type_told(node)
    if told:
        return told
    decides = _DECIDING.get(node.op_type)
    if decides is not None and len(node.input) > decides:
        return types.get(node.input[decides], TensorProto.UINT8)
    given = [types[name] for name in node.input if types.get(name)]
    floats = [t for t in given if t in _FLOATS]
    return (floats or given or [TensorProto.FLOAT])[0]


def _type_told(node: onnx.NodeProto) -> int:
    """Return the type that the operator always makes, or says that it makes; else 0."""
    if node.op_type == "Cast":
        return next((int(a.i) for a in node.attribute if a.name == "to"), 0)
    if node.op_type == "If":
        branch = next(_graphs.inner_graphs(node))
        return int(branch.output[0].type.tensor_type.elem_type)
    return next((made for names, made in _ALWAYS if node.op_type in names), 0)


def _name(kind: int) -> str:
    return _NAMES.get(kind) or (TensorProto.DataType.Name(kind).lower() if kind else "dynamic")


def _shape(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    outputs = [*node.output[:1], node.name.removesuffix(_BLOCKED), node.name]
    return next((shapes[name] for name in outputs if name in shapes), ())


def _shapes(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    return {
        value.name: tuple(
            d.dim_value if d.HasField("dim_value") else -1 for d in value.type.tensor_type.shape.dim
        )
        for value in (*graph.input, *graph.value_info, *graph.output)
        if value.type.tensor_type.HasField("shape")
    }
