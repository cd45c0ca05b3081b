"""Operators that only move values, done on the integers themselves.

DequantizeLinear → Pad → QuantizeLinear with one scale and zero point is Pad on the integers, with
the zero point for the fill: exactly the same numbers, a quarter of the bytes, and no conversions.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fettle.graph._constants import add_constant
from fettle.graph._quantized import constant_of, same_numbers

_MOVERS = {"Pad", "Slice", "Gather", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze"}


def move_integers(graph: ir.Graph) -> int:
    """Do every operator of `graph` that allows it on integers; return how many did."""
    return sum(_move(graph, node) for node in list(graph) if node.op_type in _MOVERS)


def _move(graph: ir.Graph, node: ir.Node) -> bool:
    source = node.inputs[0]
    dequantize = source.producer() if source is not None else None
    quantizes = [usage.node for usage in node.outputs[0].uses()]
    if dequantize is None or not _framed(dequantize, quantizes, node):
        return False
    zero = constant_of(dequantize.inputs[2])
    if zero is None or zero.size != 1 or not _fill_with(graph, node, zero):
        return False
    integers = dequantize.inputs[0]
    assert integers is not None
    node.replace_input_with(0, integers)
    if integers.dtype is not None:
        node.outputs[0].dtype = integers.dtype
    for quantize in quantizes:
        quantize.outputs[0].replace_all_uses_with(node.outputs[0])
        graph.remove(quantize, safe=True)
    if not dequantize.outputs[0].uses():
        graph.remove(dequantize, safe=True)
    return True


def _framed(dequantize: ir.Node, quantizes: list[ir.Node], node: ir.Node) -> bool:
    """Say whether the node stands between quantizers of one scale and zero point."""
    if dequantize.op_type != "DequantizeLinear" or len(dequantize.inputs) < 3 or not quantizes:
        return False
    if node.outputs[0].is_graph_output() or any(q.outputs[0].is_graph_output() for q in quantizes):
        return False
    return all(q.op_type == "QuantizeLinear" and same_numbers(q, dequantize) for q in quantizes)


def _fill_with(graph: ir.Graph, node: ir.Node, zero: np.ndarray) -> bool:
    """Let a Pad fill with the zero point; return False when it fills with something else."""
    if node.op_type != "Pad":
        return True
    mode = node.attributes["mode"].as_string() if "mode" in node.attributes else "constant"
    if mode != "constant":
        return True
    given = node.inputs[2] if len(node.inputs) > 2 else None
    fill = constant_of(given)
    if given is not None and (fill is None or fill.any()):
        return False
    value = add_constant(graph, f"{node.outputs[0].name}_fill", zero.reshape(()))
    if len(node.inputs) > 2:
        node.replace_input_with(2, value)
    else:
        node.resize_inputs(3)
        node.replace_input_with(2, value)
    return True
