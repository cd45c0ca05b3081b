"""Writing QuantizeLinear/DequantizeLinear pairs and quantized constants into a graph."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fettle.graph._constants import add_constant


def quantized_again(
    graph: ir.Graph,
    source: ir.Value,
    before: ir.Node,
    scales: tuple[float, float],
    zero: np.ndarray,
) -> ir.Value:
    """Quantize `source` and return what stands for it in float.

    Args:
        graph: where the nodes go.
        source: the float tensor.
        before: the node that they are put in front of.
        scales: to quantize with, and to dequantize with; two that differ multiply by their
            quotient for free.
        zero: the zero point, shape (), whose type is that of the integers.
    """
    name = f"{source.name}_again"
    point = add_constant(graph, f"{name}_zero_point", zero)
    written, read = (
        add_constant(graph, f"{name}_{part}", np.array(scale, np.float32))
        for part, scale in zip(("scale", "read_scale"), scales, strict=True)
    )
    integers = node_before(graph, before, "QuantizeLinear", [source, written, point], f"{name}_q")
    integers.dtype = ir.DataType.from_numpy(zero.dtype)
    found = node_before(graph, before, "DequantizeLinear", [integers, read, point], f"{name}_d")
    for value in (integers, found):
        value.shape = source.shape
    found.dtype = ir.DataType.FLOAT
    return found


def quantized_constant(
    graph: ir.Graph, number: float, before: ir.Node, zero: np.ndarray, name: str
) -> ir.Value:
    """Return a tensor of shape () that dequantizes to `number`, exact in float32."""
    inputs = [
        add_constant(graph, f"{name}_integer", np.array(int(zero) + 1, zero.dtype)),
        add_constant(graph, f"{name}_scale", np.array(number, np.float32)),
        add_constant(graph, f"{name}_zero_point", zero),
    ]
    found = node_before(graph, before, "DequantizeLinear", inputs, name)
    found.dtype, found.shape = ir.DataType.FLOAT, ir.Shape([])
    return found


def node_before(
    graph: ir.Graph,
    before: ir.Node,
    op: str,
    inputs: list[ir.Value],
    name: str,
    attributes: dict[str, int | float | list[int]] | None = None,
) -> ir.Value:
    """Insert a node in front of another and return its output, called `name`."""
    node = ir.node(op, inputs, attributes or {}, name=name)
    node.outputs[0].name = name
    graph.insert_before(before, node)
    return node.outputs[0]


def lowest(zero: np.ndarray) -> np.ndarray:
    """Return the least integer of the type of `zero`: the zero point of what is never negative."""
    return np.array(np.iinfo(zero.dtype).min, zero.dtype)
