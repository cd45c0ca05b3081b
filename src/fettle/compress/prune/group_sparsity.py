"""Group-sparsity training: make whole channels weak, so that removing them costs little.

What it does: trains the model with its own distillation while the weights of each group of coupled
channels decay the faster, the weaker the channel already is. Nothing is removed: follow it with
`prune.channels`, as in `prune.group_sparsity(epochs=10) > prune.channels(ratio=0.5)`.

When to use it: before a large ratio, when there is time to train.

Expected effect: the same size at the same ratio, and less accuracy lost right after removal.

Papers: Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023 (arXiv 2301.12900),
equation 4.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from fettle.compress._distillation import Distillation, DistillingLoss
from fettle.compress._masks import with_zeros_kept
from fettle.compress._technique import Technique, example_tensors
from fettle.compress.prune._groups import WEIGHTED, ChannelGraph
from fettle.core.errors import ModelError
from fettle.core.knobs import Choice, Range
from fettle.tasks import Task
from fettle.train import FitPlan, Hooks, device_of, fit

_ALPHA = 4.0  # the weakest channel decays 2^4 times as fast as the strongest


@dataclass(frozen=True, kw_only=True)
class GroupSparsity(Technique):
    """Training that weakens whole channels, without removing any."""

    strength: Annotated[float, Range(0, 1), "decay of the strongest channels' weights"] = 5e-3
    epochs: Annotated[int, Range(0, 1000), "passes over the data"] = 10
    lr: Annotated[float, Range(1e-6, 1, log=True), "peak learning rate"] = 0.02
    optimizer: Annotated[str, Choice("sgd", "adamw"), "how weights are updated"] = "sgd"
    batch_size: Annotated[int, Range(1, 65536, "examples"), "examples a step"] = 64
    alpha: Annotated[float, Range(0, 1), "share of distillation from the model itself"] = 0.7

    def requires(self, model: nn.Module, task: Task) -> None:
        """Refuse a model without a hidden layer."""
        super().requires(model, task)
        if sum(isinstance(module, WEIGHTED) for module in model.modules()) < 2:
            raise ModelError(
                f"`{self.name()}` weakens channels between layers, and this model has no layer"
                " whose width can be pruned; leave it out of the recipe"
            )

    def apply(self, model: nn.Module, task: Task) -> nn.Module:
        """Return the trained model, as wide as before."""
        loss = DistillingLoss(copy.deepcopy(model), task, Distillation(self.alpha, 3.0))
        inputs = tuple(t.to(device_of(model)) for t in example_tensors(task))
        hook = GroupDecay(slices_of(model, inputs), self.lr * self.strength)
        hooks = Hooks(loss=loss, on_step=hook, key=f"group decay {hook.rate}")
        plan = FitPlan(
            epochs=self.epochs, lr=self.lr, batch_size=self.batch_size, optimizer=self.optimizer
        )
        fit(model, task, plan, self.context, with_zeros_kept(hooks, model))
        return model


@dataclass(frozen=True)
class Slice:
    """Part of a weight: entry i along `axis` at `indices[i]` belongs to channel `channels[i]`."""

    parameter: str
    axis: int
    indices: Tensor
    channels: Tensor


@dataclass(frozen=True)
class GroupDecay:
    """A `Hooks.on_step`: w ← w · (1 − rate · 2^(α (I_max − I) / (I_max − I_min))), by channel."""

    groups: list[list[Slice]]
    rate: float

    @torch.no_grad()
    def __call__(self, model: nn.Module, step: int, total: int) -> None:
        """Let every channel of every group decay."""
        del step, total
        for group in self.groups:
            weights = [model.get_parameter(each.parameter) for each in group]
            factors = 1 - self.rate * speeds(_norms(group, weights))
            for each, weight in zip(group, weights, strict=True):
                shape = [1] * weight.ndim
                shape[each.axis] = -1
                whole = torch.ones(weight.shape[each.axis], device=weight.device)
                whole[each.indices] = factors[each.channels].to(whole)
                weight.mul_(whole.view(shape))


def speeds(norms: Tensor) -> Tensor:
    """Return how fast each channel decays, 1 … 16, of their norms (channels,)."""
    spread = (norms.max() - norms.min()).clamp(min=1e-12)
    return torch.pow(2.0, _ALPHA * (norms.max() - norms) / spread)


def slices_of(model: nn.Module, inputs: tuple[Tensor, ...]) -> list[list[Slice]]:
    """Return, for each group of coupled channels, the weights that write and read it."""
    graph, groups = ChannelGraph.of(model, inputs)
    found = [[s for item in group.members if (s := _slice(graph, item))] for group in groups]
    return [group for group in found if group]


def _slice(graph: ChannelGraph, item: Any) -> Slice | None:
    layer = item.dep.target.module
    if not isinstance(layer, WEIGHTED) or getattr(layer, "groups", 1) > 1:
        return None
    writes = graph.graph.is_out_channel_pruning_fn(item.dep.handler)
    axis = int(writes == bool(getattr(layer, "transposed", False)))
    if not item.idxs or max(item.idxs) >= layer.weight.shape[axis]:
        return None
    name = f"{graph.paths[layer]}.weight"
    return Slice(name, axis, torch.tensor(item.idxs), torch.tensor(item.root_idxs))


def _norms(group: list[Slice], weights: list[nn.Parameter]) -> Tensor:
    count = 1 + max(int(each.channels.max()) for each in group)
    total = torch.zeros(count, dtype=torch.float64)
    for each, weight in zip(group, weights, strict=True):
        squares = weight.double().pow(2).transpose(0, each.axis).flatten(1).sum(1).cpu()
        total.index_add_(0, each.channels, squares[each.indices])
    return total.sqrt()
