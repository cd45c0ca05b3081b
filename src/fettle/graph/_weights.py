"""The weights of a convolution, plain or behind a DequantizeLinear: reading and widening them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fettle.graph._constants import add_constant, set_type
from fettle.graph._quantized import constant_of


def group_of(conv: ir.Node) -> int:
    """Return the number of groups of a convolution."""
    return conv.attributes["group"].as_int() if "group" in conv.attributes else 1


def stored_weight(conv: ir.Node) -> np.ndarray | None:
    """Return the constant weight as it is stored, shape (O, I/group, …).

    None when the weight or the bias is no constant, or quantized along another axis than the first.
    """
    parts = [_stored(value) for value in conv.inputs[1:3] if value is not None]
    return parts[0] if parts and all(part is not None for part in parts) else None


def widened(graph: ir.Graph, conv: ir.Node, *, outputs: int, inputs: int) -> None:
    """Give a convolution more output and input channels, whose weights and biases are zero."""
    _widen_input(graph, conv, 1, {0: outputs, 1: inputs})
    if outputs and len(conv.inputs) > 2 and conv.inputs[2] is not None:
        _widen_input(graph, conv, 2, {0: outputs})


def _stored(value: ir.Value | None) -> np.ndarray | None:
    node = value.producer() if value is not None else None
    if node is not None and node.op_type == "DequantizeLinear":
        known = all(constant_of(part) is not None for part in node.inputs)
        first = node.attributes["axis"].as_int() == 0 if "axis" in node.attributes else False
        by_tensor = all(_size(part) == 1 for part in node.inputs[1:])
        return constant_of(node.inputs[0]) if known and (first or by_tensor) else None
    return constant_of(value)


def _size(value: ir.Value | None) -> int:
    constant = constant_of(value)
    return 0 if constant is None else constant.size


def _widen_input(graph: ir.Graph, conv: ir.Node, index: int, more: dict[int, int]) -> None:
    value = conv.inputs[index]
    assert value is not None
    name = f"{conv.outputs[0].name}_{index}_wide"
    node = value.producer()
    if node is None or node.op_type != "DequantizeLinear":
        conv.replace_input_with(index, _wider(graph, value, name, more, 0))
        return
    zero = constant_of(node.inputs[2]) if len(node.inputs) > 2 else None
    fill = 0 if zero is None else zero.reshape(-1)[0]
    wide = _wider(graph, node.inputs[0], name, more, fill)
    first = {0: more[0]}
    rest = [
        _wider(graph, part, f"{name}_{i}", first, filling) if _size(part) > 1 else part
        for i, (part, filling) in enumerate(zip(node.inputs[1:], (1, fill), strict=False))
    ]
    copy = ir.node("DequantizeLinear", [wide, *rest], dict(node.attributes), name=name)
    copy.outputs[0].name = f"{name}_float"
    set_type(copy.outputs[0], value)
    graph.insert_before(conv, copy)
    conv.replace_input_with(index, copy.outputs[0])


def _wider(
    graph: ir.Graph, value: ir.Value | None, name: str, more: dict[int, int], fill: float
) -> ir.Value:
    array = constant_of(value)
    assert array is not None
    pads = [(0, more.get(axis, 0)) for axis in range(array.ndim)]
    return add_constant(graph, f"{name}_held", np.pad(array, pads, constant_values=fill))
