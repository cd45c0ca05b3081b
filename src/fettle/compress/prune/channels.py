"""Channel pruning: remove whole output channels, and everything that depends on them.

What it does: finds the groups of coupled channels (dependency graph of Torch-Pruning), ranks them
by what their weights, gradients or batch norms say, removes the weakest `ratio`, so that the
tensors really shrink, measures batch norms' statistics anew, and trains what is left with
distillation from the model that came in. Every removal is proven first: on a copy with random
weights the narrower model must compute what the silenced one does; groups for which it doesn't
(fused attention, splits at fixed places) keep their width, and are named.

When to use it: on convolutional nets, and on the residual width and the hidden layers of
transformers and mixers, with training data, where a dense engine must get faster.

Expected effect: about (1 − ratio)² of the multiply-adds; less of the time, because thin layers
are bound by memory and overhead. Channel counts are rounded to the engine's vector width, for an
unaligned count can be slower than the unpruned one.

Papers: Li et al. 2017 (arXiv 1608.08710); Fang et al., "DepGraph", CVPR 2023 (arXiv 2301.12900);
Fang et al., "Isomorphic Pruning", ECCV 2024 (arXiv 2407.04616); Molchanov et al. 2019 (Taylor,
arXiv 1906.10771); He et al. 2019 (FPGM, arXiv 1811.00250); Liu et al. 2017 (batch norm's scale,
arXiv 1708.06519).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import nn

from fettle.compress._technique import Technique, example_tensors
from fettle.compress.prune._bn import restimate
from fettle.compress.prune._groups import WEIGHTED, ChannelGraph, Group, idle_layers
from fettle.compress.prune._importance import KINDS, gather_gradients, scorer, scores_of
from fettle.compress.prune._proof import provable
from fettle.compress.prune._ranking import Ranking
from fettle.compress.prune._tuning import FineTuned
from fettle.core.errors import ModelError
from fettle.core.knobs import Choice, Range
from fettle.tasks import Task
from fettle.train import device_of

_GRADIENT_BATCHES, _BATCH = 8, 128


@dataclass(frozen=True, kw_only=True)
class Channels(FineTuned, Technique):
    """Structured pruning of channels, with fine-tuning."""

    ratio: Annotated[float, Range(0, 0.95), "fraction of channels removed"] = 0.5
    importance: Annotated[
        str, Choice(*KINDS), "what says how much a channel matters; random is the control"
    ] = "l2"
    ranking: Annotated[
        str,
        Choice("local", "global", "isomorphic"),
        "the same share of each group, the weakest of all, or the weakest of groups built alike",
    ] = "local"
    steps: Annotated[int, Range(1, 100), "rounds of removal, which share the epochs"] = 1
    round_to: Annotated[
        int, Choice(1, 2, 4, 8, 16, 32, 64), "channel counts stay multiples of this vector width"
    ] = 8
    bn_batches: Annotated[
        int, Range(0, 10_000), "batches of 256 that batch norms are measured anew on; 0 is never"
    ] = 8

    def requires(self, model: nn.Module, task: Task) -> None:
        """Refuse a model without a hidden layer whose width could change."""
        super().requires(model, task)
        if sum(isinstance(module, WEIGHTED) for module in model.modules()) < 2:
            raise ModelError(
                f"`{self.name()}` removes channels between convolutions or linear layers, and this"
                " model has no layer whose width can be pruned; leave it out of the recipe, or"
                " distill into a smaller model"
            )

    def apply(self, model: nn.Module, task: Task) -> nn.Module:
        """Return the narrower, fine-tuned model."""
        teacher = copy.deepcopy(model)
        original: dict[str, int] = {}
        for step in range(1, self.steps + 1):
            changed = self._remove(model, task, self.ratio * step / self.steps, original)
            if changed and self.bn_batches:
                restimate(model, task, self.bn_batches)
            part = f"step{step}" if self.steps > 1 else ""
            self.fine_tune(model, teacher, task, share(self.epochs, self.steps, step), part)
        return model

    def _remove(self, model: nn.Module, task: Task, ratio: float, original: dict[str, int]) -> bool:
        """Bring `model` to `ratio`, in place; return whether anything went."""
        if ratio == 0:
            return False
        inputs = tuple(t.to(device_of(model)) for t in example_tensors(task))
        if self.importance == "taylor":
            gather_gradients(model, task, _GRADIENT_BATCHES, _BATCH)
        ranking = Ranking(self.ranking, self.round_to)
        wanted, gone = remove_channels(model, inputs, ratio, self.importance, ranking, original)
        model.zero_grad(set_to_none=True)
        self.context.progress.say(told(self.name(), self.round_to, wanted, gone))
        if gone and (idle := idle_layers(model, inputs)):
            self.context.progress.say(
                f"`{self.name()}` keeps the widths of layers that don't run on the examples:"
                f" {', '.join(idle[:4])}; where other inputs reach them they may no longer fit"
            )
        return bool(gone)


def told(name: str, round_to: int, wanted: Collection[str], gone: Collection[str]) -> str:
    """Return what technique `name` made of the groups of channels that were to lose some."""
    left = [root for root in wanted if root not in gone]
    if not wanted:
        return (
            f"`{name}` removed nothing: no width has a multiple of {round_to} near its share;"
            " lower `round_to`, or raise `ratio`"
        )
    if not left:
        return f"`{name}` removed channels of {len(gone)} groups"
    return (
        f"`{name}` leaves {len(left)} of {len(wanted)} groups of channels as they are, since they"
        " can't be removed without changing what is computed:"
        f" {', '.join(left[:4])}{' …' if len(left) > 4 else ''}"
    )


def remove_channels(
    model: nn.Module,
    inputs: tuple[torch.Tensor, ...],
    ratio: float,
    importance: str,
    ranking: Ranking,
    original: dict[str, int] | None = None,
    only: Callable[[Group], bool] = lambda _: True,
) -> tuple[Mapping[str, list[int]], Mapping[str, list[int]]]:
    """Remove the weakest `ratio` of channels from `model`, in place.

    The layer that makes the model's output keeps its width.

    Args:
        model: with gradients in place if `importance` is `taylor`.
        inputs: the model's arguments, batch first.
        ratio: of all channels that there were at first.
        importance: a kind of `_importance`.
        ranking: which are compared, and to what they are rounded.
        original: widths at first by group; filled in the first round, kept between rounds.
        only: says whether a group may lose channels.

    Returns:
        By the path of each group's root the channels that were to go, and those that went.

    Raises:
        ModelError: the model has no width that can change.
    """
    graph, found = ChannelGraph.of(model, inputs)
    scores = scores_of([group for group in found if only(group)], scorer(importance))
    groups = [group for group in found if group.root in scores]
    original = {} if original is None else original
    for group in groups:
        original.setdefault(group.root, group.width)
    wanted = ranking.choose(groups, scores, ratio, original)
    gone = provable(graph, groups, wanted) if wanted else {}
    if not groups or (wanted and not gone):
        raise ModelError(
            "`prune.channels` found no layer whose width can be pruned: the model has"
            f" {len(groups)} groups of coupled channels, and none can be removed without changing"
            " what it computes; leave it out of the recipe, or distill into a smaller model"
        )
    for root, channels in gone.items():
        graph.remove(root, channels)
    return wanted, gone


def share(epochs: int, steps: int, step: int) -> int:
    """Return how many of `epochs` come after step `step` of `steps`: as even as can be."""
    return epochs * step // steps - epochs * (step - 1) // steps
