"""Cross-layer equalization: ranges of weights are balanced between consecutive layers.

What it does: where a layer's output channels reach only other layers, and nothing but a rectifier
without upper bound, a pool or the like stands between, channel i can be divided by s_i > 0 in the
first and multiplied by it in the second: relu(x / s) · s = relu(x). With r₁ᵢ the largest weight
of output channel i and r₂ᵢ that of input channel i, s_i = √(r₁ᵢ / r₂ᵢ) makes both ranges equal,
√(r₁ᵢ · r₂ᵢ), so that no channel of the tensor vanishes beside a large one. Pairs in a row
(pointwise, depthwise, pointwise) are balanced in turns until nothing moves. Batch norms are folded
first.

Clip and ReLU6 bind absolute values, so that their channels can't be scaled, and such pairs stay
as they are; so do layers that share a weight, and channels that anything else reads, such as a
residual sum.

When to use it: before `graph.static_int8`, when the drop is large, above all with one scale a
tensor, on depthwise-separable nets with ReLU or PReLU. With one scale a channel it gains little,
and may cost: it widens some activations to narrow weights.

Expected effect: the same function up to rounding, the same speed. With one scale a channel, as
`graph.static_int8` has them, nothing beyond noise (`benchmarks/results`, rescue); the paper has it
save networks that are quantized with one scale a tensor.

Paper: Nagel et al. 2019 (arXiv 1906.04721), section 4.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from fettle.core.errors import ModelError
from fettle.core.knobs import Range
from fettle.graph._channel_readers import Readers, readers
from fettle.graph._layers import Layer, alone, layers, put, row
from fettle.graph._pass import GraphPass
from fettle.graph._prepare import prepared
from fettle.graph._quantized import constant_of

if TYPE_CHECKING:
    from fettle.tasks import Task

_SETTLED = 1e-4  # largest change of a logarithm in a round that counts as none


@dataclass(frozen=True, kw_only=True)
class Equalize(GraphPass):
    """Balance the weight ranges of consecutive layers; the function stays the same."""

    limit: Annotated[
        float, Range(1, 1e6, log=True), "largest factor by which a channel is scaled"
    ] = 100.0
    rounds: Annotated[int, Range(1, 1000), "rounds over all pairs, at most"] = 50

    def requires(self, model: ir.Model) -> None:
        """Refuse a quantized model."""
        if any(node.op_type == "DequantizeLinear" for node in model.graph):
            raise ModelError(
                f"`{self.name()}` balances float weights, and this model is quantized already;"
                " put it before the quantization"
            )

    def apply(self, model: ir.Model, task: Task | None) -> ir.Model:
        """Scale the channels of every pair; a model without pairs stays as it is."""
        del task
        model = prepared(model)
        links = _links(model.graph)
        ranges = {link.source.node: _Ranges(link.source) for link in links}
        for layer in (layer for link in links for layer, _ in link.readers.layers):
            ranges.setdefault(layer.node, _Ranges(layer))
        for _ in range(self.rounds):
            if max((link.balance(ranges, self.limit) for link in links), default=0) < _SETTLED:
                break
        for link in links:
            link.scale_constants(model.graph)
        for node_ranges in ranges.values():
            node_ranges.scale_weight(model.graph)
        common.RemoveUnusedNodesPass()(model)
        self.context.progress.say(f"{self.name()}: balanced {len(links)} groups of layers")
        return model


class _Ranges:
    """Magnitudes of a layer's weight, and the factors that its channels have so far."""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        weight = layer.canonical(layer.weight).astype(np.float64)
        self._largest = np.abs(weight).max(axis=3)  # (groups, outputs, inputs)
        groups, outputs, inputs = self._largest.shape
        self.output_factor = np.ones((groups, outputs, 1))
        self.input_factor = np.ones((groups, 1, inputs))

    def of_outputs(self) -> np.ndarray:
        """Return the range of each output channel."""
        largest = (self._largest * self.input_factor).max(axis=2, keepdims=True)
        return np.ravel(largest * self.output_factor)

    def of_inputs(self) -> np.ndarray:
        """Return the range of each input channel."""
        largest = (self._largest * self.output_factor).max(axis=1, keepdims=True)
        return np.ravel(largest * self.input_factor)

    def scale_weight(self, graph: ir.Graph) -> None:
        """Write the scaled weight into the graph."""
        weight = self.layer.canonical(self.layer.weight).astype(np.float64)
        factor = self.output_factor * self.input_factor
        scaled = self.layer.stored(weight * factor[..., None]).astype(self.layer.weight.dtype)
        put(graph, self.layer.node, 1, scaled)


@dataclass
class _Link:
    """A layer, those that alone read its channels, and the factor of each channel so far."""

    source: Layer
    bias: np.ndarray | None
    readers: Readers
    factor: np.ndarray

    def balance(self, ranges: dict[ir.Node, _Ranges], limit: float) -> float:
        """Make the ranges on both sides equal; return the largest change of a logarithm."""
        first = ranges[self.source.node].of_outputs()
        second = np.max(
            [ranges[r.node].of_inputs().reshape(-1, k).max(1) for r, k in self.readers.layers], 0
        )
        alive = (first > 0) & (second > 0)
        change = np.sqrt(np.divide(second, first, where=alive, out=np.ones_like(first)))
        change = np.clip(self.factor * change, 1 / limit, limit) / self.factor
        self.factor = self.factor * change
        self._pass_on(ranges, change)
        return float(np.abs(np.log(change)).max())

    def _pass_on(self, ranges: dict[ir.Node, _Ranges], change: np.ndarray) -> None:
        source = ranges[self.source.node]
        source.output_factor *= change.reshape(source.output_factor.shape)
        for reader, width in self.readers.layers:
            factor = ranges[reader.node].input_factor
            factor /= np.repeat(change, width).reshape(factor.shape)

    def scale_constants(self, graph: ir.Graph) -> None:
        """Scale the bias, and what is added on the way."""
        if self.bias is not None:
            put(graph, self.source.node, 2, (self.bias * self.factor).astype(np.float32))
        for node, constant in self.readers.sums:
            index = next(i for i in (0, 1) if constant_of(node.inputs[i]) is not None)
            put(graph, node, index, (constant * self.factor).astype(np.float32))


def _links(graph: ir.Graph) -> list[_Link]:
    return [link for layer in layers(graph) if (link := _link(graph, layer)) is not None]


def _link(graph: ir.Graph, layer: Layer) -> _Link | None:
    channels = layer.outputs
    found = readers(graph, layer.node.outputs[0], channels, last=not layer.convolves)
    if found is None or not all(_own(part) for part in (layer, *(r for r, _ in found.layers))):
        return None
    held = layer.node.inputs[2] if len(layer.node.inputs) > 2 else None
    if held is None:
        return _Link(layer, None, found, np.ones(channels))
    bias = row(constant_of(held), channels)
    return None if bias is None else _Link(layer, bias, found, np.ones(channels))


def _own(layer: Layer) -> bool:
    """Say whether the layer's weight is float32, and read by nobody else."""
    return layer.weight.dtype == np.float32 and alone(layer.node.inputs[1])
