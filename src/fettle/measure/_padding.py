"""How many products of a convolution aren't with padding."""

from __future__ import annotations

from math import prod

import onnx

from fettle.measure._shapes import Shapes

_WEIGHT = {"Conv": 1, "FusedConv": 1, "ConvInteger": 1, "QLinearConv": 3}


def products_inside(node: onnx.NodeProto, shapes: Shapes, macs: int) -> int:
    """Return the multiply-adds of `node` without those with padding, which an engine may skip."""
    if node.op_type not in _WEIGHT:
        return macs
    x, weight = shapes[node.input[0]], shapes[node.input[_WEIGHT[node.op_type]]]
    out = shapes[node.output[0]]
    axes = len(x) - 2
    begins = _starts(node, x[2:], weight[2:], out[2:])
    strides, dilations = _ints(node, "strides", axes), _ints(node, "dilations", axes)
    kept = 1
    for axis in range(axes):
        kept *= sum(
            0 <= at * strides[axis] - begins[axis] + tap * dilations[axis] < x[2 + axis]
            for at in range(out[2 + axis])
            for tap in range(weight[2 + axis])
        )
    return macs * kept // max(1, prod(out[2:]) * prod(weight[2:]))


def _starts(
    node: onnx.NodeProto, x: tuple[int, ...], kernel: tuple[int, ...], out: tuple[int, ...]
) -> list[int]:
    """Return the padding before the first number of each axis."""
    mode = next((a.s.decode() for a in node.attribute if a.name == "auto_pad"), "NOTSET")
    axes = len(x)
    if not mode.startswith("SAME"):
        return next((list(a.ints) for a in node.attribute if a.name == "pads"), [0] * axes)[:axes]
    strides, dilations = _ints(node, "strides", axes), _ints(node, "dilations", axes)
    total = [
        max(0, (out[i] - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 - x[i])
        for i in range(axes)
    ]
    return [n // 2 if mode == "SAME_UPPER" else n - n // 2 for n in total]


def _ints(node: onnx.NodeProto, name: str, axes: int) -> list[int]:
    return next((list(a.ints) for a in node.attribute if a.name == name), [1] * axes)
