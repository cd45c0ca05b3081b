"""Smaller shapes of a network: fewer blocks, thinner layers, or a smaller sibling.

Latency doesn't depend on the weights. So each shape is built untrained, quantized with whatever
ranges come out, and timed in seconds; only those that would push the frontier are trained.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fettle.core.recipe import Recipe, parse_step
from fettle.search.strategies._allocated import allocated_shapes
from fettle.search.strategies.training_free import last_for

if TYPE_CHECKING:
    from fettle.core.plugin import Plugin
    from fettle.search.optimize import Search

DEPTHS = (0.0, 0.33, 0.5, 0.67, 0.8)  # share of the removable blocks that go
WIDTHS = (0.0, 0.25, 0.5)  # share of the channels that go


@dataclass(frozen=True)
class Shape:
    """How a network is made smaller, and what a request takes then.

    `steps` remove and don't train; `ms` is comparable to the other trials' times.
    """

    steps: tuple[Plugin, ...]
    ms: float

    def trained(self, *rungs: Plugin) -> tuple[Plugin, ...]:
        """Return the steps, then those that train."""
        return (*self.steps, *rungs)


def shapes(search: Search) -> list[Shape]:
    """Return the shapes that are faster than the leader, the fastest first.

    Once a few were timed, others whose prediction is sure to be slower are not built to be timed.

    Raises:
        OutOfTime: no time is left.
    """
    found = []
    bar = search.leader.row["comparable_ms"] * (1 - search.least_gain)
    for steps in _far_apart_first(proposals(search)):
        recipe = Recipe((*steps, parse_step(last_for(search))))
        foretold = search.predict(recipe)
        if foretold is not None and foretold.low >= bar:
            continue
        trial = search.sketch(recipe)
        if trial is not None:
            found.append(Shape(steps, trial.row["comparable_ms"]))
    return sorted((s for s in found if s.ms < bar), key=lambda shape: shape.ms)


def _far_apart_first(found: list[tuple[Plugin, ...]]) -> list[tuple[Plugin, ...]]:
    """Return the last and the middle right after the first: what predictions are learned from."""
    ends = [0, len(found) - 1, len(found) // 2]
    order = dict.fromkeys([*ends, *range(len(found))] if found else [])
    return [found[place] for place in order]


def proposals(search: Search) -> list[tuple[Plugin, ...]]:
    """Return what could be removed, as steps without training: allocated, then by ratios."""
    found = []
    for depth, width in itertools.product(DEPTHS, WIDTHS):
        steps = [f"prune.blocks(ratio={depth}, epochs=0)"] if depth else []
        steps += [f"prune.channels(ratio={width}, epochs=0)"] if width else []
        made = tuple(parse_step(step) for step in steps)
        if made and search.wish.allows(Recipe(made)):
            found.append(made)
    return [*allocated_shapes(search), *found]
