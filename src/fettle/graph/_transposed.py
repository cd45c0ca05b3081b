"""Weights that are transposed after they were dequantized, as torch's linear layers are exported.

Transposing the integers themselves is the same, and leaves a layer whose weight stands directly
behind its DequantizeLinear, which is where the other rewrites look for it.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fettle.graph._constants import add_constant, set_type
from fettle.graph._quantized import constant_of


def straighten_weights(graph: ir.Graph) -> int:
    """Transpose the integers of every weight instead; return how many there were."""
    return sum(_straighten(graph, n) for n in list(graph) if n.op_type == "Transpose")


def _straighten(graph: ir.Graph, transpose: ir.Node) -> bool:
    value = transpose.inputs[0]
    held = value.producer() if value is not None else None
    if held is None or held.op_type != "DequantizeLinear" or transpose.outputs[0].is_graph_output():
        return False
    constants = [constant_of(given) for given in held.inputs]
    if constants[0] is None or any(c is None for c in constants):
        return False
    if any(c is not None and c.ndim > 1 for c in constants[1:]):
        return False
    name = str(transpose.outputs[0].name)
    order = _order(transpose, constants[0].ndim)
    integers = np.ascontiguousarray(constants[0].transpose(order))
    turned = add_constant(graph, f"{name}_integers", integers)
    axis = held.attributes["axis"].as_int() if "axis" in held.attributes else 1
    copy = ir.node("DequantizeLinear", [turned, *held.inputs[1:]],
                   {"axis": order.index(axis % len(order))}, name=f"{name}_dequantize")  # fmt: skip
    made, old = copy.outputs[0], transpose.outputs[0]
    set_type(made, old)
    made.shape, made.name = ir.Shape(turned.shape or ()), f"{name}_straight"
    graph.insert_before(transpose, copy)
    old.replace_all_uses_with(made)
    graph.remove(transpose, safe=True)
    if not held.outputs[0].uses() and not held.outputs[0].is_graph_output():
        graph.remove(held, safe=True)
    return True


def _order(transpose: ir.Node, rank: int) -> list[int]:
    """Return which axis comes where; without being told, the last comes first."""
    if "perm" in transpose.attributes:
        return list(transpose.attributes["perm"].as_ints())
    return list(range(rank))[::-1]
