"""How many channels of each group go, and which."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fettle.compress.prune._groups import Group

_SCOPES: dict[str, Callable[[Group], str]] = {
    "local": lambda group: group.root,
    "global": lambda _: "all",
    "isomorphic": lambda group: group.shape,
}


@dataclass(frozen=True)
class Ranking:
    """Which channels are compared with which, and in what steps widths shrink.

    Attributes:
        scope: `local` ranks each group by itself, `global` all together, `isomorphic` those
            groups together whose layers follow one pattern (Fang et al., "Isomorphic Pruning for
            Vision Models", ECCV 2024).
        round_to: what is left of a width is the nearest multiple of it, and at least that.
    """

    scope: str
    round_to: int

    def choose(
        self,
        groups: Sequence[Group],
        scores: Mapping[str, Tensor],
        ratio: float,
        original: Mapping[str, int],
    ) -> dict[str, list[int]]:
        """Return, by root, the channels that must go so that `ratio` of `original` is gone.

        Args:
            groups: as they are now.
            scores: by root, one an element of a group's chunk; comparable between groups.
            ratio: of the channels that there were at first.
            original: by root, the width at first.
        """
        chosen: dict[str, list[int]] = {}
        scope_of = _SCOPES[self.scope]
        for scope in dict.fromkeys(map(scope_of, groups)):
            here = [group for group in groups if scope_of(group) == scope]
            for group, left in zip(here, _left(here, scores, ratio, original), strict=True):
                count = (group.width - self.width(left, group)) // group.chunks
                if count > 0:
                    chosen[group.root] = weakest(scores[group.root], count, group.chunks)
        return chosen

    def width(self, wanted: float, group: Group) -> int:
        """Return the allowed width next to `wanted`; ties go down."""
        unit = math.lcm(self.round_to, group.chunks)
        if unit > group.width:
            unit = group.chunks if self.round_to < group.width else group.width
        return min(group.width, max(unit, math.ceil(wanted / unit - 0.5) * unit))


def weakest(scores: Tensor, count: int, chunks: int) -> list[int]:
    """Return the channels of the `count` lowest scores, in every chunk."""
    low = torch.argsort(scores, stable=True)[:count]
    return sorted(int(i) + part * len(scores) for part in range(chunks) for i in low)


def _left(
    groups: Sequence[Group],
    scores: Mapping[str, Tensor],
    ratio: float,
    original: Mapping[str, int],
) -> list[float]:
    """Return the width that is wanted for each group of a scope."""
    if len(groups) == 1:
        return [original[groups[0].root] * (1 - ratio)]
    pool = torch.cat([scores[group.root] for group in groups])
    at_first = sum(original[group.root] / group.chunks for group in groups)
    gone = max(0, len(pool) - math.floor(at_first * (1 - ratio)))
    lost = torch.zeros(len(pool), dtype=torch.bool)
    lost[torch.argsort(pool, stable=True)[:gone]] = True
    parts = torch.split(lost, [len(scores[group.root]) for group in groups])
    return [float((~part).sum()) * group.chunks for part, group in zip(parts, groups, strict=True)]
