"""Multiply-accumulates and parameters, counted from the graph.

One MAC is one fused multiply-add. They say how much arithmetic a model asks for, not how long it
takes: halving them seldom halves the latency, so a ratio of MACs is never called a speed-up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import onnx

from fettle.core.measurement import Measurement
from fettle.measure._graph import attribute, read, weights
from fettle.measure._metric import Artifact, Metric
from fettle.measure._shapes import Shapes, for_one_example

Count = Callable[[onnx.NodeProto, Shapes], int]


@dataclass(frozen=True)
class LayerMacs:
    """The multiply-accumulates of one node."""

    name: str
    op: str
    macs: int


def layer_macs(
    path: str | Path, shapes: Mapping[str, Sequence[int]] | None = None
) -> list[LayerMacs]:
    """Return the MACs of each convolution, product and recurrent layer, for one example.

    Counted are Conv, ConvTranspose, Gemm, MatMul, LSTM, GRU, RNN and their integer and fused
    kin; adds, activations, pools, norms, and whatever stands inside If and Loop, are not.
    `shapes` gives the shapes of inputs that have more than the batch free.

    Raises:
        ModelError: no readable ONNX, or a shape that can't be known.
    """
    graph, known = for_one_example(read(path, with_data=True), shapes)
    return [
        LayerMacs(node.name or node.output[0], node.op_type, _COUNTS[node.op_type](node, known))
        for node in graph.node
        if node.op_type in _COUNTS
    ]


def macs_of_node(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Return the MACs of one node, 0 for an operator that isn't counted."""
    count = _COUNTS.get(node.op_type)
    return count(node, shapes) if count else 0


def macs_of(path: str | Path, shapes: Mapping[str, Sequence[int]] | None = None) -> int:
    """Return the MACs of the whole model for one example; see `layer_macs`."""
    return sum(layer.macs for layer in layer_macs(path, shapes))


def parameters_of(path: str | Path) -> int:
    """Return how many numbers the model learned: no indices, scales or zero points.

    Raises:
        ModelError: no readable ONNX.
    """
    return sum(weight.size for weight in weights(read(path)))


@dataclass(frozen=True, kw_only=True)
class Macs(Metric):
    """Multiply-accumulates for one example."""

    def measure(self, subject: Artifact) -> Measurement:
        """Count them; a task tells the shapes of inputs that have more than the batch free."""
        shapes = None
        if subject.task:
            inputs = subject.task.example_inputs(1)
            shapes = {name: (1, *array.shape[1:]) for name, array in inputs.items()}
        return Measurement.exact("macs", macs_of(subject.path, shapes), "MAC")


def _convolution(weight: int) -> Count:
    """Each output element sums over the weight's shape (out, in / groups, k, …) but the first."""
    return lambda node, shapes: prod(shapes[node.output[0]]) * prod(shapes[node.input[weight]][1:])


def _transposed(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Each input element is spread over the weight's shape (in, out / groups, k, …) but one."""
    return prod(shapes[node.input[0]]) * prod(shapes[node.input[1]][1:])


def _product(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Each output element sums over the last axis of the left operand, or the one before it."""
    turned = attribute(node, "transA", 0)
    left = shapes[node.input[0]]
    return prod(shapes[node.output[0]]) * left[-2 if turned else -1]


def _recurrent(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Each step of each example multiplies by W and R once; directions and gates are in them."""
    steps = prod(shapes[node.input[0]][:2])
    return steps * (prod(shapes[node.input[1]]) + prod(shapes[node.input[2]]))


_COUNTS: dict[str, Count] = {
    "Conv": _convolution(1),
    "FusedConv": _convolution(1),
    "ConvInteger": _convolution(1),
    "QLinearConv": _convolution(3),
    "ConvTranspose": _transposed,
    **dict.fromkeys(("Gemm", "FusedGemm", "QGemm"), _product),
    **dict.fromkeys(("MatMul", "FusedMatMul", "MatMulInteger", "QLinearMatMul"), _product),
    **dict.fromkeys(("DynamicQuantizeMatMul", "MatMulIntegerToFloat", "MatMulNBits"), _product),
    **dict.fromkeys(("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"), _recurrent),
}
