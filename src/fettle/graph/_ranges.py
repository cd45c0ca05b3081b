"""What can be said of a tensor's range from the graph alone."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fettle.graph._quantized import constant_of

_ALWAYS = {"Relu", "Sigmoid", "HardSigmoid", "Softmax", "Softplus", "Abs", "Exp", "Sqrt"}
_FIRST_DECIDES = {
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "ReduceMean",
    "ReduceMax",
    "Reshape",
    "Flatten",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
    "Slice",
    "Gather",
    "Identity",
    "Dropout",
    "Split",
    "QuantizeLinear",
}
_ALL_DECIDE = {"Add", "Mul", "Concat", "Max", "Sum"}


def non_negative_values(graph: ir.Graph) -> set[ir.Value]:
    """Return the values of `graph` (in topological order) that can't hold a negative number."""
    found: set[ir.Value] = set()
    for node in graph:
        if _never_negative(node, found):
            found.update(node.outputs)
    return found


def _never_negative(node: ir.Node, found: set[ir.Value]) -> bool:
    op = node.op_type
    if op in _ALWAYS:
        return True
    if op == "Clip":
        low = constant_of(node.inputs[1]) if len(node.inputs) > 1 else None
        return (low is not None and bool((low >= 0).all())) or _holds(node.inputs[0], found)
    if op == "Pad":
        fill = constant_of(node.inputs[2]) if len(node.inputs) > 2 else None
        filled = node.inputs[2:3] in ((), (None,)) or (fill is not None and bool((fill >= 0).all()))
        return filled and _holds(node.inputs[0], found)
    if op == "DequantizeLinear":
        return node.inputs[0] in found or _holds_dequantized(node)
    if op in _FIRST_DECIDES:
        return _holds(node.inputs[0], found)
    return op in _ALL_DECIDE and all(_holds(value, found) for value in node.inputs)


def _holds(value: ir.Value | None, found: set[ir.Value]) -> bool:
    if value in found:
        return True
    constant = constant_of(value)
    return constant is not None and bool((constant >= 0).all())


def _holds_dequantized(node: ir.Node) -> bool:
    """Say whether a constant behind a DequantizeLinear is nowhere below its zero point."""
    constant = constant_of(node.inputs[0])
    zero = constant_of(node.inputs[2]) if len(node.inputs) > 2 else np.zeros(())
    return constant is not None and zero is not None and bool((constant >= zero.max()).all())
