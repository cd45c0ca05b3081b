"""Adding channels that hold nothing, from the convolutions that make them to those that read them.

A region is what must widen together: the convolutions that make the channels, the operators that
treat each channel alone, and the convolutions that read them. What the new channels hold doesn't
matter, for their readers' weights are zero.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from fettle.graph._constants import add_constant, set_type
from fettle.graph._quantized import constant_of
from fettle.graph._weights import group_of, stored_weight, widened

_STRIDE, _INPUT_STRIDE = 16, 4
_ALONE = {"QuantizeLinear", "DequantizeLinear", "Relu", "Clip", "HardSwish", "HardSigmoid",
          "Sigmoid", "GlobalAveragePool", "MaxPool", "AveragePool"}  # fmt: skip
_TOGETHER = {"Add", "Mul"}


@dataclass
class _Region:
    """Nodes that widen together; `makers` gain outputs, `readers` gain inputs."""

    channels: int
    makers: list[ir.Node] = field(default_factory=list)
    depthwise: list[ir.Node] = field(default_factory=list)
    readers: list[ir.Node] = field(default_factory=list)
    between: set[ir.Node] = field(default_factory=set)


def widen_input(graph: ir.Graph) -> int:
    """Let convolutions of a quantized input of few channels read some that are empty."""
    return sum(_widen_input(graph, node) for node in list(graph) if node.op_type == "Conv")


def widen_depthwise(graph: ir.Graph) -> int:
    """Round the channels of depthwise convolutions up; return how many regions were widened."""
    done: set[ir.Node] = set()
    count = 0
    for node in list(graph):
        channels = _depthwise_channels(node)
        if channels is None or node in done or channels % _STRIDE == 0:
            continue
        region = _region_of(node, channels)
        if region is not None:
            _widen(graph, region, -channels % _STRIDE)
            done.update(region.depthwise)
            count += 1
    return count


def _widen_input(graph: ir.Graph, conv: ir.Node) -> bool:
    dequantize = conv.inputs[0].producer() if conv.inputs[0] is not None else None
    weight = stored_weight(conv)
    if weight is None or not _of_few_channels(conv, weight) or not _lone_dequantizer(dequantize):
        return False
    assert dequantize is not None
    integers, zero = dequantize.inputs[0], constant_of(dequantize.inputs[2])
    if integers is None or zero is None or zero.size != 1:
        return False
    more = _INPUT_STRIDE - weight.shape[1]
    name = f"{conv.outputs[0].name}_wide"
    pads = add_constant(graph, f"{name}_pads", np.array([0, 0, 0, 0, 0, more, 0, 0], np.int64))
    fill = add_constant(graph, f"{name}_fill", zero.reshape(()))
    pad = ir.node("Pad", [integers, pads, fill], name=name)
    pad.outputs[0].name = name
    set_type(pad.outputs[0], integers)
    graph.insert_before(dequantize, pad)
    dequantize.replace_input_with(0, pad.outputs[0])
    dequantize.outputs[0].shape = None
    widened(graph, conv, outputs=0, inputs=more)
    return True


def _of_few_channels(conv: ir.Node, weight: np.ndarray) -> bool:
    """Say whether it is a small filter over too few channels; a large one has enough to do."""
    small = weight.ndim == 4 and max(weight.shape[2:]) in (2, 3)
    return small and weight.shape[1] < _INPUT_STRIDE and group_of(conv) == 1


def _lone_dequantizer(node: ir.Node | None) -> bool:
    """Say whether the node dequantizes for one reader alone."""
    if node is None or node.op_type != "DequantizeLinear" or len(node.inputs) < 3:
        return False
    return len(node.outputs[0].uses()) == 1


def _depthwise_channels(node: ir.Node) -> int | None:
    """Return the channels of a depthwise convolution with one filter a channel, else None."""
    weight = stored_weight(node) if node.op_type == "Conv" else None
    if weight is None or weight.shape[1] != 1 or weight.shape[0] != group_of(node):
        return None
    return int(weight.shape[0]) if weight.shape[0] > 1 else None


def _region_of(conv: ir.Node, channels: int) -> _Region | None:
    """Return all that widens with the depthwise convolution, or None when something can't."""
    region, waiting = _Region(channels), [conv.inputs[0], conv.outputs[0]]
    seen: set[ir.Value] = set()
    while waiting:
        value = waiting.pop()
        if value is None or value.is_graph_output() or value.producer() is None:
            return None
        if value in seen:
            continue
        seen.add(value)
        for node in [value.producer(), *(usage.node for usage in value.uses())]:
            found = _grow(region, node, value)
            if found is None:
                return None
            waiting += found
    return region


def _grow(region: _Region, node: ir.Node | None, value: ir.Value) -> list[ir.Value | None] | None:
    """Take a node into the region; return the values that widen with it, None when it can't."""
    assert node is not None
    if node.op_type == "Conv":
        return _grow_conv(region, node, value)
    alone = node.op_type in _ALONE and all(_is_scalar(v) for v in node.inputs[1:] if v is not None)
    if not alone and node.op_type not in _TOGETHER:
        return None
    region.between.add(node)
    values = node.inputs[:1] if alone else [v for v in node.inputs if not _is_scalar(v)]
    return [*values, node.outputs[0]]


def _grow_conv(region: _Region, conv: ir.Node, value: ir.Value) -> list[ir.Value | None] | None:
    if stored_weight(conv) is None or value in conv.inputs[1:]:
        return None
    if _depthwise_channels(conv) == region.channels:
        region.depthwise += [] if conv in region.depthwise else [conv]
        return [conv.inputs[0], conv.outputs[0]]
    if group_of(conv) != 1:
        return None
    kind = region.makers if value is conv.outputs[0] else region.readers
    kind += [] if conv in kind else [conv]
    return []


def _is_scalar(value: ir.Value | None) -> bool:
    """Say whether a value is one constant number, through a DequantizeLinear too."""
    constant = constant_of(value)
    if constant is not None:
        return constant.size == 1
    node = value.producer() if value is not None else None
    return node is not None and node.op_type == "DequantizeLinear" and _is_scalar(node.inputs[0])


def _widen(graph: ir.Graph, region: _Region, more: int) -> None:
    for conv in dict.fromkeys([*region.makers, *region.readers]):
        made, read = more * (conv in region.makers), more * (conv in region.readers)
        widened(graph, conv, outputs=made, inputs=read)
    for conv in region.depthwise:
        widened(graph, conv, outputs=more, inputs=0)
        conv.attributes["group"] = ir.AttrInt64("group", region.channels + more)
    for node in [*region.makers, *region.depthwise, *region.between]:
        node.outputs[0].shape = None
