"""Batch norms of an exported graph: their modes, their freezing, and their end in the weights.

In an exported graph the mode of batch norm and dropout is an argument of the node. It is set there,
which keeps each node's own ε, momentum and dropout rate (torchao's pattern rewriting resets them).

Folding a norm y = γ (x − μ) / √(σ² + ε) + β into the layer before it, with a = γ / √(σ² + ε):

    w′ = a · w    b′ = a · (b − μ) + β    weight scale′ = |a| · scale

Weights are quantized by output channel, so rounding commutes with a: what was trained with fake
quantization before its norm has the same integers after the fold.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e import FakeQuantize, FakeQuantizeBase, disable_observer

from fettle.compress.quantize._learned import LearnedScale
from fettle.compress.quantize._quantizer import CONVOLUTIONS, LINEARS, NORMS

_DROPOUTS = {torch.ops.aten.dropout.default, torch.ops.aten.dropout_.default}
_FROZEN = "statistics_frozen"


def add_marks(prepared: GraphModule) -> None:
    """Give every fake quantizer the mark that says whether statistics are frozen.

    A buffer, because only parameters and buffers are in a checkpoint and in what workers get.
    """
    for quantizer in _fake_quantizers(prepared):
        quantizer.register_buffer(_FROZEN, torch.zeros(1, dtype=torch.uint8))


@dataclass(frozen=True)
class Freeze:
    """An `on_step` hook: after this part of the training, statistics stand still.

    Observed ranges stop, and batch norms compute with their running statistics, which stop too:
    the rest of the training sees the function that will be converted.
    """

    part: float

    def __call__(self, model: nn.Module, step: int, total: int) -> None:
        """Freeze after optimizer step `step` of `total`, if it is time."""
        if step < self.part * total or is_frozen(model):
            return
        model.apply(disable_observer)
        for quantizer in _fake_quantizers(model):
            quantizer.get_buffer(_FROZEN).fill_(1)
        set_training(model, True)


def is_frozen(prepared: nn.Module) -> bool:
    """Return whether the statistics of a prepared graph stand still."""
    return any(bool(q.get_buffer(_FROZEN)) for q in _fake_quantizers(prepared))


def set_training(model: nn.Module, training: bool) -> None:
    """Switch a prepared graph between training and evaluation (`.train()` refuses to)."""
    assert isinstance(model, GraphModule)
    moving = training and not is_frozen(model)
    changed = [_set_mode(node, training, moving) for node in model.graph.nodes]
    if any(changed):
        model.recompile()


def fold_norms(graph: GraphModule) -> None:
    """Fold each batch norm that directly follows a convolution or linear layer into its weights."""
    for node in list(graph.graph.nodes):
        if node.target in NORMS and _can_fold(node):
            _fold(graph, node)
    graph.graph.eliminate_dead_code()
    graph.recompile()


@dataclass(frozen=True)
class _Affine:
    """What a norm in evaluation computes: y = factor · x + shift, both (channels,)."""

    factor: Tensor
    shift: Tensor

    @classmethod
    def of(cls, graph: GraphModule, norm: Node) -> _Affine:
        """Return it, computed in float64."""
        gamma, beta, mean, variance = (_tensor(graph, a) for a in norm.args[1:5])
        assert mean is not None
        assert variance is not None
        factor = (variance.double() + float(norm.args[7])).rsqrt()  # type: ignore[arg-type]
        factor = factor if gamma is None else factor * gamma.double()
        shift = -mean.double() * factor
        return cls(factor, shift if beta is None else shift + beta.double())


def _fake_quantizers(model: nn.Module) -> list[FakeQuantizeBase]:
    return [m for m in model.modules() if isinstance(m, FakeQuantizeBase)]


def _set_mode(node: Node, training: bool, moving: bool) -> bool:
    """Set one node's mode; return whether that changed it."""
    if node.target in NORMS:
        # Without running statistics there is only one mode, and with a momentum of 0 (torch's
        # cumulative average, which export loses) they would never follow the training.
        if node.args[3] is None or not node.args[6]:
            return False
        index, mode = 5, moving
    elif node.target in _DROPOUTS:
        index, mode = 2, training
    else:
        return False
    changed = node.args[index] is not mode
    node.update_arg(index, mode)
    return changed


def _can_fold(norm: Node) -> bool:
    layer = norm.args[0]
    if not isinstance(layer, Node) or len(layer.users) > 1 or norm.args[3] is None:
        return False
    rows = layer.target in LINEARS and layer.meta["val"].dim() == 2  # else axis 1 isn't the output
    if not rows and layer.target not in CONVOLUTIONS:
        return False
    return _weight_source(layer).op == "get_attr"


def _weight_source(layer: Node) -> Node:
    """Return the node of a layer's weight, behind its fake quantizer if there is one."""
    weight = layer.args[1]
    assert isinstance(weight, Node)
    if weight.op == "call_module":
        weight = weight.args[0]
    assert isinstance(weight, Node)
    return weight


@torch.no_grad()
def _fold(graph: GraphModule, norm: Node) -> None:
    """Give the layer before `norm` weights of its own with the norm in them; drop the norm."""
    layer, mean = norm.args[0], norm.args[3]
    assert isinstance(layer, Node)
    assert isinstance(mean, Node)
    affine = _Affine.of(graph, norm)
    old_weight, old_bias, *rest = (*layer.args[1:], None)[: max(2, len(layer.args) - 1)]
    bias = _tensor(graph, old_bias)
    shift = affine.shift if bias is None else affine.shift + bias.double() * affine.factor
    with graph.graph.inserting_before(layer):
        if old_weight is _weight_source(layer):
            weight = _scaled_weight(graph, layer, affine.factor, None)
        else:
            weight = _scaled_quantizer(graph, layer, affine.factor)
        new_bias = _attribute(graph, f"{layer.name}_folded_bias", shift, mean)
    layer.args = (layer.args[0], weight, new_bias, *rest)
    norm.replace_all_uses_with(layer)
    graph.graph.erase_node(norm)


def _scaled_weight(
    graph: GraphModule, layer: Node, factor: Tensor, rounded: nn.Module | None
) -> Node:
    """Return a node with a layer's weight, `rounded` if asked for, times `factor` (channels,)."""
    source = _weight_source(layer)
    weight = _tensor(graph, source)
    assert weight is not None
    if rounded is not None:
        weight = rounded(weight)
    folded = weight.double() * factor.reshape(-1, *[1] * (weight.dim() - 1))
    return _attribute(graph, f"{layer.name}_folded_weight", folded, source)


def _scaled_quantizer(graph: GraphModule, layer: Node, factor: Tensor) -> Node:
    """Return a fake quantizer of the layer's own, on its scaled weight.

    The weight is rounded before it is scaled: so the integers stay, whatever float32 does.
    """
    old = layer.args[1]
    assert isinstance(old, Node)
    quantizer = copy.deepcopy(graph.get_submodule(str(old.target)))
    weight = _scaled_weight(graph, layer, factor, quantizer)
    _rescale(quantizer, factor.abs())
    name = f"{layer.name}_folded_quantizer"
    graph.add_submodule(name, quantizer)
    call = graph.graph.call_module(name, (weight,))
    call.meta = dict(old.meta)
    return call


def _rescale(quantizer: nn.Module, factor: Tensor) -> None:
    """Multiply the scales of a weight's fake quantizer, of shape (channels,)."""
    factor = factor.float()
    if isinstance(quantizer, LearnedScale):
        quantizer.scale.data.mul_(factor)
        return
    assert isinstance(quantizer, FakeQuantize)
    quantizer.scale.mul_(factor)
    observer = quantizer.activation_post_process
    for extreme in (observer.min_val, observer.max_val):
        extreme.mul_(factor)


def _attribute(graph: GraphModule, name: str, value: Tensor, like: Node) -> Node:
    """Add a parameter to the graph, and return the node that reads it."""
    graph.register_parameter(name, nn.Parameter(value.float()))
    node = graph.graph.get_attr(name)
    node.meta = dict(like.meta)
    return node


def _tensor(graph: GraphModule, node: object) -> Tensor | None:
    """Return the parameter or buffer that a `get_attr` node reads."""
    if not isinstance(node, Node):
        return None
    owner, _, name = str(node.target).rpartition(".")
    value = getattr(graph.get_submodule(owner), name)
    assert isinstance(value, Tensor)
    return value
