"""Batch norms, and products and sums by channel, become part of the layer before.

What it does: BatchNormalization after Conv, ConvTranspose or Gemm is y = a·x + b by output channel
with a = γ/√(σ² + ε) and b = β − a·μ, so the layer's weight is multiplied by a, and its bias becomes
a·bias + b. A Mul or Add of a constant by channel, as some exporters write a scale or a bias, is
folded alike. A layer whose output somebody else reads too, or whose weight is computed, stays.

When to use it: on files that were exported in training form, before quantization and pruning;
`graph.static_int8` does it by itself.

Expected effect: the same function up to rounding, fewer operators; engines do the same when they
load the file, so speed changes only where one of them misses a case.

Paper: Jacob et al. 2018 (arXiv 1712.05877), section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from fettle.graph._constants import add_constant
from fettle.graph._pass import GraphPass
from fettle.graph._quantized import constant_of

if TYPE_CHECKING:
    from fettle.tasks import Task

_LAYERS = {"Conv", "ConvTranspose", "Gemm"}
Affine = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class FoldBatchNorm(GraphPass):
    """Fold batch norms into the layers before them."""

    def apply(self, model: ir.Model, task: Task | None) -> ir.Model:
        """Fold what can be folded; a model without batch norms stays as it is."""
        del task
        fold_batch_norms(model.graph)
        return model


def fold_batch_norms(graph: ir.Graph) -> int:
    """Fold in place, chains of them too; return how many operators went."""
    folded = 0
    for node in list(graph):
        operand = _operand(node)
        layer = graph_producer(operand, graph)
        if layer is None or operand is None or not _foldable(layer, operand):
            continue
        affine = _affine(node, layer)
        if affine is not None:
            _absorb(graph, layer, affine)
            _take_place(graph, node, layer)
            folded += 1
    return folded


def graph_producer(value: ir.Value | None, graph: ir.Graph) -> ir.Node | None:
    """Return the node of `graph` itself, not of a graph around it, that makes `value`."""
    node = value.producer() if value is not None else None
    return node if node is not None and node.graph is graph else None


def output_channels(layer: ir.Node, weight: np.ndarray) -> int:
    """Return how many output channels (or features) a Conv, ConvTranspose or Gemm has."""
    if layer.op_type == "ConvTranspose":
        return int(weight.shape[1]) * attribute_int(layer, "group", 1)
    if layer.op_type == "Gemm" and not attribute_int(layer, "transB", 0):
        return int(weight.shape[1])
    return int(weight.shape[0])


def attribute_int(node: ir.Node, name: str, default: int) -> int:
    """Return an integer attribute, or what ONNX takes where it is absent."""
    return int(node.attributes[name].as_int()) if name in node.attributes else default


def _operand(node: ir.Node) -> ir.Value | None:
    """Return the input that an affine operator acts on; None for any other operator."""
    if node.domain or node.op_type not in ("BatchNormalization", "Add", "Mul"):
        return None
    if node.op_type != "BatchNormalization" and constant_of(node.inputs[0]) is not None:
        return node.inputs[1]
    return node.inputs[0]


def _foldable(layer: ir.Node, operand: ir.Value) -> bool:
    """Say whether the layer has constant parameters, and one reader of its output."""
    if layer.op_type not in _LAYERS or layer.domain:
        return False
    if len(operand.uses()) != 1 or operand.is_graph_output():
        return False
    bias = layer.inputs[2] if len(layer.inputs) > 2 else None
    plain = "beta" not in layer.attributes or layer.attributes["beta"].as_float() == 1.0
    held = constant_of(layer.inputs[1]) is not None
    return plain and held and (bias is None or _row(constant_of(bias)) is not None)


def _row(bias: np.ndarray | None) -> np.ndarray | None:
    """Return a bias as a vector; None when it differs between rows of a batch."""
    if bias is None or bias.size != (bias.shape[-1] if bias.ndim else 1):
        return None
    return bias.reshape(-1)


def _affine(node: ir.Node, layer: ir.Node) -> Affine | None:
    """Return (a, b), float64, each of one element an output channel, of y = a·x + b."""
    weight = constant_of(layer.inputs[1])
    assert weight is not None
    channels = output_channels(layer, weight)
    if node.op_type == "BatchNormalization":
        return _of_norm(node)
    constant = constant_of(node.inputs[0])
    constant = constant_of(node.inputs[1]) if constant is None else constant
    rank = 2 if layer.op_type == "Gemm" else weight.ndim
    vector = _by_channel(constant, rank, channels)
    if vector is None:
        return None
    if node.op_type == "Mul":
        return vector, np.zeros(channels)
    return np.ones(channels), vector


def _of_norm(norm: ir.Node) -> Affine | None:
    parameters = [constant_of(value) for value in norm.inputs[1:5]]
    used = [value for value in norm.outputs[1:] if value.uses()]
    if None in [None if p is None else 0 for p in parameters] or used:
        return None
    if attribute_int(norm, "training_mode", 0):
        return None
    gamma, beta, mean, variance = (np.asarray(p, np.float64) for p in parameters)
    if gamma.ndim != 1:  # one number each pixel: the form `spatial=0` of operator set 7
        return None
    epsilon = norm.attributes["epsilon"].as_float() if "epsilon" in norm.attributes else 1e-5
    scale = gamma / np.sqrt(variance + epsilon)
    return scale, beta - mean * scale


def _by_channel(constant: np.ndarray | None, rank: int, channels: int) -> np.ndarray | None:
    """Return a constant as one number a channel (axis 1), or None when it varies elsewhere."""
    if constant is None or constant.ndim > rank:
        return None
    shape = (1,) * (rank - constant.ndim) + constant.shape
    if constant.size != shape[1] or shape[1] not in (1, channels):
        return None
    return np.broadcast_to(constant.reshape(-1).astype(np.float64), (channels,))


def _absorb(graph: ir.Graph, layer: ir.Node, affine: Affine) -> None:
    """Give the layer new parameters; the old ones may belong to others too."""
    scale, shift = affine
    weight = constant_of(layer.inputs[1])
    assert weight is not None
    bias = _row(constant_of(layer.inputs[2])) if len(layer.inputs) > 2 else None
    before = np.zeros(1) if bias is None else bias.astype(np.float64)
    factor = _along(layer, weight, scale)
    name = layer.outputs[0].name
    new_weight = (weight.astype(np.float64) * factor).astype(weight.dtype)
    new_bias = (before * scale + shift).astype(weight.dtype)
    layer.replace_input_with(1, add_constant(graph, f"{name}_weight_folded", new_weight))
    if len(layer.inputs) < 3:
        layer.resize_inputs(3)
    layer.replace_input_with(2, add_constant(graph, f"{name}_bias_folded", new_bias))


def _along(layer: ir.Node, weight: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return one factor an output channel in a shape that multiplies the weight."""
    if layer.op_type == "Gemm":
        return scale[:, None] if attribute_int(layer, "transB", 0) else scale[None, :]
    spatial = (1,) * (weight.ndim - 2)
    if layer.op_type == "Conv":
        return scale.reshape(-1, 1, *spatial)
    groups = attribute_int(layer, "group", 1)  # weight: (inputs, outputs / groups, …)
    by_group = np.repeat(scale.reshape(groups, -1), weight.shape[0] // groups, axis=0)
    return by_group.reshape(*by_group.shape, *spatial)


def _take_place(graph: ir.Graph, node: ir.Node, layer: ir.Node) -> None:
    """Let the layer make what `node` made, under the same name."""
    old, new = node.outputs[0], layer.outputs[0]
    name, kind, shape = old.name, old.type, old.shape
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    new.name, new.type, new.shape = name, kind or new.type, shape or new.shape
