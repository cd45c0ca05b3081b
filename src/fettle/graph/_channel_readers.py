"""Following the channels of a tensor to the layers that read them.

Between a tensor and a layer may stand operators through which a positive factor of each channel
passes unchanged, f(s·x) = s·f(x): rectifiers without an upper bound, pools, what only moves values
along other axes, and sums with a constant, which has to be scaled along.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from fettle.graph._layers import Layer, layer_of, row
from fettle.graph._quantized import constant_of
from fettle.graph.fold_batch_norm import attribute_int

_ELEMENTWISE = {"Relu", "LeakyRelu", "PRelu", "Identity", "Dropout"}
_POOLS = {"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"}


@dataclass
class Readers:
    """Every layer that reads the channels of a tensor, and the constants added on the way.

    Attributes:
        channels: how many there are.
        layers: each with how many of its inputs stand for one channel: more than 1 after a
            Flatten.
        sums: Add nodes with the constant that they add, one number a channel.
    """

    channels: int
    layers: list[tuple[Layer, int]] = field(default_factory=list)
    sums: list[tuple[ir.Node, np.ndarray]] = field(default_factory=list)


def readers(graph: ir.Graph, value: ir.Value, channels: int, last: bool) -> Readers | None:
    """Return who reads the channels of `value`.

    Args:
        graph: whose tensor it is.
        value: a tensor.
        channels: how many it has.
        last: whether they are its last axis, else they are axis 1.

    Returns:
        None when anything else reads them too, so that they can't be scaled.
    """
    found = Readers(channels)
    return found if _follow(graph, value, last, found) and found.layers else None


def _follow(graph: ir.Graph, value: ir.Value, last: bool, found: Readers) -> bool:
    if value.is_graph_output() or not value.uses():
        return False
    return all(
        usage.node.graph is graph and _enter(graph, usage.node, usage.idx, last, found)
        for usage in value.uses()
    )


def _enter(graph: ir.Graph, node: ir.Node, index: int, last: bool, found: Readers) -> bool:
    layer = layer_of(node)
    if layer is not None and index == 0:
        found.layers.append((layer, layer.inputs // found.channels))
        return layer.convolves != last and layer.inputs % found.channels == 0
    if node.domain or any(output.uses() for output in node.outputs[1:]):
        return False
    after = _axis_after(node, index, last, found)
    return after is not None and _follow(graph, node.outputs[0], after, found)


def _axis_after(node: ir.Node, index: int, last: bool, found: Readers) -> bool | None:
    """Return whether the channels are the last axis behind `node`; None when they don't pass."""
    if node.op_type == "Add":
        return last if _adds_constant(node, index, last, found) else None
    if index != 0:
        return None
    if node.op_type in _ELEMENTWISE:
        return last
    if node.op_type in _POOLS:
        return None if last else False
    rule = _MOVES.get(node.op_type)
    return rule(node, last) if rule is not None else None


def _adds_constant(node: ir.Node, index: int, last: bool, found: Readers) -> bool:
    vector = row(constant_of(node.inputs[1 - index]), found.channels) if last else None
    if vector is not None:
        found.sums.append((node, vector))
    return vector is not None


def _after_flatten(node: ir.Node, last: bool) -> bool | None:
    if last:
        return None
    return True if attribute_int(node, "axis", 1) == 1 else None


def _after_reshape(node: ir.Node, last: bool) -> bool | None:
    """A Reshape whose shapes are known to be those of Flatten passes for one."""
    source, made = (_shape(value) for value in (node.inputs[0], node.outputs[0]))
    if last or source is None or made is None or len(made) != 2 or len(source) < 3:
        return None
    sizes = [n for n in source[1:] if isinstance(n, int)]
    return True if len(sizes) == len(source) - 1 and made[1] == math.prod(sizes) else None


def _after_mean(node: ir.Node, last: bool) -> bool | None:
    """A mean over all axes but batch and channels."""
    shape = _shape(node.inputs[0])
    axes = _numbers(node, 1, "axes")
    if last or shape is None or axes is None:
        return None
    if {axis % len(shape) for axis in axes} != set(range(2, len(shape))):
        return None
    return not attribute_int(node, "keepdims", 1)


def _after_slice(node: ir.Node, last: bool) -> bool | None:
    shape, axes = _shape(node.inputs[0]), _numbers(node, 3, "axes")
    if shape is None or axes is None:
        return None
    channel = len(shape) - 1 if last else 1
    return None if channel in {axis % len(shape) for axis in axes} else last


def _after_transpose(node: ir.Node, last: bool) -> bool | None:
    order = node.attributes["perm"].as_ints() if "perm" in node.attributes else ()
    return True if last and order and order[-1] == len(order) - 1 else None


def _numbers(node: ir.Node, index: int, name: str) -> list[int] | None:
    """Return whole numbers that are an input, or an attribute in older operator sets."""
    if name in node.attributes:
        return [int(number) for number in node.attributes[name].as_ints()]
    constant = constant_of(node.inputs[index]) if len(node.inputs) > index else None
    return None if constant is None else [int(number) for number in constant.reshape(-1)]


def _shape(value: ir.Value | None) -> tuple[object, ...] | None:
    return None if value is None or value.shape is None else tuple(value.shape)


_MOVES: dict[str, Callable[[ir.Node, bool], bool | None]] = {
    "Flatten": _after_flatten,
    "Reshape": _after_reshape,
    "ReduceMean": _after_mean,
    "Slice": _after_slice,
    "Transpose": _after_transpose,
}
