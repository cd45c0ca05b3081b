"""Means over height and width as GlobalAveragePool, which onnxruntime has in integers."""

from __future__ import annotations

import onnx_ir as ir

from fettle.graph._constants import set_type
from fettle.graph._pairs import node_before
from fettle.graph._quantized import constant_of

_VIEWS = {"Reshape", "Flatten", "Squeeze"}


def pool_means(graph: ir.Graph) -> int:
    """Rewrite the spatial means of `graph` whose input and output are quantized; return how many.

    A pool keeps its two dimensions of size 1, so a mean that drops them is followed by Flatten.
    The quantizer moves up to the pool, which changes nothing: what stands between only reshapes.
    """
    return sum(_pool(graph, node) for node in list(graph) if node.op_type == "ReduceMean")


def _pool(graph: ir.Graph, mean: ir.Node) -> bool:
    source, quantize = mean.inputs[0], _quantizer_below(mean)
    dequantized = source is not None and _is(source.producer(), "DequantizeLinear")
    if not dequantized or quantize is None or not _spatial(mean):
        return False
    assert source is not None
    name = f"{mean.outputs[0].name}_pool"
    pooled = node_before(graph, mean, "GlobalAveragePool", [source], name)
    numbers = [value for value in quantize.inputs[1:3] if value is not None]
    integers = node_before(graph, mean, "QuantizeLinear", [pooled, *numbers], f"{name}_q")
    held = node_before(graph, mean, "DequantizeLinear", [integers, *numbers], f"{name}_d")
    shape = source.shape
    assert shape is not None
    set_type(integers, quantize.outputs[0])
    for value in (pooled, held):
        set_type(value, source)
    for value in (pooled, integers, held):
        value.shape = ir.Shape([*shape[:2], 1, 1])
    if not _keeps(mean):
        held = node_before(graph, mean, "Flatten", [held], f"{name}_flat", {"axis": 1})
        set_type(held, source)
        held.shape = ir.Shape(list(shape[:2]))
    mean.outputs[0].replace_all_uses_with(held)
    graph.remove(mean, safe=True)
    return True


def _quantizer_below(node: ir.Node) -> ir.Node | None:
    """Return the quantizer that alone reads the node, through views."""
    value = node.outputs[0]
    readers = [usage.node for usage in value.uses()]
    if value.is_graph_output() or len(readers) != 1:
        return None
    reader = readers[0]
    if reader.op_type == "QuantizeLinear":
        return reader if len(reader.inputs) > 2 else None
    return _quantizer_below(reader) if reader.op_type in _VIEWS else None


def _spatial(mean: ir.Node) -> bool:
    """Say whether it is the mean over the last two of four dimensions."""
    source = mean.inputs[0]
    assert source is not None
    if source.shape is None or len(source.shape) != 4:
        return False
    axes = constant_of(mean.inputs[1]) if len(mean.inputs) > 1 else None
    if axes is None and "axes" in mean.attributes:
        return {int(axis) % 4 for axis in mean.attributes["axes"].as_ints()} == {2, 3}
    return axes is not None and {int(axis) % 4 for axis in axes.reshape(-1)} == {2, 3}


def _keeps(mean: ir.Node) -> bool:
    return "keepdims" not in mean.attributes or bool(mean.attributes["keepdims"].as_int())


def _is(node: ir.Node | None, op: str) -> bool:
    return node is not None and node.op_type == op
