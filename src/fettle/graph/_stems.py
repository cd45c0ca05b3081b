"""Convolutions of stride 2 over few channels, as convolutions of stride 1 over four times as many.

Blocks of 2 × 2 pixels become channels (space to depth). With the padding p made even, P = p or p+1,
and the filter k moved by P − p zeros, tap j of output o reads pixel 2o + j − P, which is pixel
j mod 2 of block o + ⌊j/2⌋ − P/2: the same products, and zeros. Exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from fettle.graph._constants import add_constant, set_type
from fettle.graph._quantized import constant_of
from fettle.graph._weights import group_of, stored_weight

_BLOCK = 2
_MOST_CHANNELS = 4


@dataclass(frozen=True)
class _Axis:
    """One spatial axis: zeros before and after the filter, and the padding in blocks."""

    before: int
    after: int
    first: int
    last: int


def fold_stems(graph: ir.Graph) -> int:
    """Rewrite every such convolution of quantized pixels; return how many there were."""
    return sum(_fold(graph, node) for node in list(graph) if node.op_type == "Conv")


def _fold(graph: ir.Graph, conv: ir.Node) -> bool:
    dequantize = conv.inputs[0].producer() if conv.inputs[0] is not None else None
    weight = stored_weight(conv)
    if weight is None or dequantize is None or not _suits(conv, weight, dequantize):
        return False
    axes = _axes(conv, weight, dequantize)
    if axes is None:
        return False
    _fold_pixels(graph, conv, dequantize)
    _fold_weight(graph, conv, _folded(weight, axes))
    pads = [axis.first for axis in axes] + [axis.last for axis in axes]
    conv.attributes["pads"] = ir.AttrInt64s("pads", pads)
    conv.attributes["strides"] = ir.AttrInt64s("strides", [1, 1])
    kernel = [
        (k + a.before + a.after) // _BLOCK for k, a in zip(weight.shape[2:], axes, strict=True)
    ]
    conv.attributes["kernel_shape"] = ir.AttrInt64s("kernel_shape", kernel)
    return True


def _suits(conv: ir.Node, weight: np.ndarray, dequantize: ir.Node) -> bool:
    """Say whether it is a plain convolution of stride 2 that alone reads quantized pixels."""
    held = conv.inputs[1].producer() if conv.inputs[1] is not None else None
    zero = constant_of(held.inputs[2]) if held is not None and len(held.inputs) > 2 else None
    if held is None or (zero is not None and zero.any()):
        return False
    few = weight.ndim == 4 and weight.shape[1] <= _MOST_CHANNELS and group_of(conv) == 1
    alone = dequantize.op_type == "DequantizeLinear" and len(dequantize.outputs[0].uses()) == 1
    padding = conv.attributes["auto_pad"].as_string() if "auto_pad" in conv.attributes else "NOTSET"
    plain = _ints(conv, "dilations", [1, 1]) == [1, 1] and padding == "NOTSET"
    return few and alone and plain and _ints(conv, "strides", [1, 1]) == [_BLOCK, _BLOCK]


def _axes(conv: ir.Node, weight: np.ndarray, dequantize: ir.Node) -> list[_Axis] | None:
    pixels = dequantize.inputs[0]
    shape = pixels.shape if pixels is not None else None
    sizes = [size for size in shape[2:] if isinstance(size, int)] if shape is not None else []
    if len(sizes) != 2:
        return None
    pads = _ints(conv, "pads", [0, 0, 0, 0])
    found = [_axis(sizes[i], weight.shape[2 + i], pads[i], pads[2 + i]) for i in range(2)]
    axes = [axis for axis in found if axis is not None]
    return axes if len(axes) == 2 else None


def _axis(size: int, kernel: int, first: int, last: int) -> _Axis | None:
    """Return how an axis is folded, or None when it can't be."""
    before = first % _BLOCK
    after = (kernel + before) % _BLOCK
    taps, start = (kernel + before + after) // _BLOCK, (first + before) // _BLOCK
    made = (size + first + last - kernel) // _BLOCK + 1
    end = made - 1 + taps - size // _BLOCK - start
    return _Axis(before, after, start, end) if size % _BLOCK == 0 and end >= 0 else None


def _ints(node: ir.Node, name: str, usual: list[int]) -> list[int]:
    return list(node.attributes[name].as_ints()) if name in node.attributes else usual


def _folded(weight: np.ndarray, axes: list[_Axis]) -> np.ndarray:
    """Return weights (O, C, h, w) as (O, 4·C, h/2, w/2), in the order of SpaceToDepth."""
    grown = np.pad(weight, [(0, 0), (0, 0), *((axis.before, axis.after) for axis in axes)])
    count, channels, height, width = grown.shape
    blocks = grown.reshape(count, channels, height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK)
    moved = blocks.transpose(0, 3, 5, 1, 2, 4)  # O, 2, 2, C, h/2, w/2
    return np.ascontiguousarray(moved.reshape(count, -1, height // _BLOCK, width // _BLOCK))


def _fold_pixels(graph: ir.Graph, conv: ir.Node, dequantize: ir.Node) -> None:
    pixels = dequantize.inputs[0]
    name = f"{conv.outputs[0].name}_blocks"
    node = ir.node("SpaceToDepth", [pixels], {"blocksize": _BLOCK}, name=name)
    node.outputs[0].name = name
    set_type(node.outputs[0], pixels)
    graph.insert_before(dequantize, node)
    dequantize.replace_input_with(0, node.outputs[0])
    dequantize.outputs[0].shape = None


def _fold_weight(graph: ir.Graph, conv: ir.Node, numbers: np.ndarray) -> None:
    value = conv.inputs[1]
    held = value.producer() if value is not None else None
    assert held is not None
    name = f"{conv.outputs[0].name}_folded"
    parts = [add_constant(graph, f"{name}_held", numbers), *held.inputs[1:]]
    copy = ir.node("DequantizeLinear", parts, dict(held.attributes), name=name)
    copy.outputs[0].name = f"{name}_float"
    set_type(copy.outputs[0], value)
    graph.insert_before(conv, copy)
    conv.replace_input_with(1, copy.outputs[0])
    if not held.outputs[0].uses() and not held.outputs[0].is_graph_output():
        graph.remove(held, safe=True)
