"""Allocated pruning: exactly these widths, exactly these blocks.

What it does: leaves each named group of coupled channels the share that is given for it, the
strongest channels by their weights, leaves out the named blocks, measures batch norms' statistics
anew, and trains what is left with distillation from the model that came in. Widths are named by
the layer that makes them (`layer1.0.conv1=0.5` keeps half), blocks by their path. Every removal is
proven first, as in `prune.channels`; what isn't named stays as it is.

When to use it: when something knows which parts to take. `fettle optimize` does: it measures what
each part alone does to the outputs and to the time, and solves for the best mix.

Expected effect: at one latency less is lost before training than with one ratio for all; after
long training little of that difference may be left.

Papers: Fang et al., "DepGraph", CVPR 2023 (arXiv 2301.12900); Shen et al., "HALP", NeurIPS 2022
(arXiv 2110.10811: which channels, as a knapsack over measured latency); Veit et al., NeurIPS 2016
(arXiv 1605.06431: blocks).
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Annotated

from torch import nn

from fettle.compress._technique import Technique, example_tensors
from fettle.compress.prune._bn import restimate
from fettle.compress.prune._importance import KINDS, gather_gradients
from fettle.compress.prune._parts import Parts, running
from fettle.compress.prune._tuning import FineTuned
from fettle.core.errors import KnobError
from fettle.core.knobs import Choice, Range, Text
from fettle.tasks import Task
from fettle.train import device_of

__all__ = ["Allocated", "Parts", "running"]

_GRADIENT_BATCHES, _BATCH = 8, 128


@dataclass(frozen=True, kw_only=True)
class Allocated(FineTuned, Technique):
    """Removal of named widths and blocks, with fine-tuning."""

    widths: Annotated[
        str, Text("LAYER=SHARE, separated by blanks"), "the share of channels that each keeps"
    ] = ""
    blocks: Annotated[str, Text("paths, separated by blanks"), "the blocks that are left out"] = ""
    importance: Annotated[
        str, Choice(*KINDS), "what says how much a channel matters; random is the control"
    ] = "l2"
    round_to: Annotated[
        int, Choice(1, 2, 4, 8, 16, 32, 64), "channel counts stay multiples of this vector width"
    ] = 8
    bn_batches: Annotated[
        int, Range(0, 10_000), "batches of 256 that batch norms are measured anew on; 0 is never"
    ] = 8

    def apply(self, model: nn.Module, task: Task) -> nn.Module:
        """Return the smaller, fine-tuned model.

        Raises:
            KnobError: `widths` that don't parse.
            UnknownName: a layer or block that isn't there; names the nearest.
            ModelError: channels that can't be removed.
        """
        shares, paths = shares_in(self.widths), self.blocks.split()
        teacher = copy.deepcopy(model)
        if shares or paths:
            self._remove(model, task, shares, paths)
        self.fine_tune(model, teacher, task, self.epochs)
        return model

    def _remove(
        self, model: nn.Module, task: Task, shares: dict[str, float], paths: list[str]
    ) -> None:
        """Take the parts away, in place: widths first, for a block may hold a group's root."""
        inputs = tuple(t.to(device_of(model)) for t in example_tensors(task))
        parts = Parts(model, inputs, self.round_to)
        if shares and self.importance == "taylor":
            gather_gradients(model, task, _GRADIENT_BATCHES, _BATCH)
        changed = parts.narrow(shares, self.importance)
        parts.drop(paths)
        model.zero_grad(set_to_none=True)
        if (changed or paths) and self.bn_batches:
            restimate(model, task, self.bn_batches)


def shares_in(text: str) -> dict[str, float]:
    """Return the share of each layer in `layer1.0.conv1=0.5 layer2.1.conv1=0.75`.

    Raises:
        KnobError: it doesn't parse, or names a layer twice.
    """
    found: dict[str, float] = {}
    for part in text.split():
        name, equals, number = part.rpartition("=")
        share = _number(number)
        if not equals or not name or not 0 < share <= 1 or name in found:
            raise KnobError(
                "`prune.allocated(widths=…)` expects each layer once, with a share above 0 and up"
                f" to 1, such as `layer1.0.conv1=0.5 layer2.1.conv1=0.75`, got `{part}`"
            )
        found[name] = share
    return found


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
