"""Smaller shapes, trained in rounds: short for many, long for the few that can still win.

Successive halving (Jamieson & Talwalkar 2016, arXiv 1502.07943): each rung trains the survivors
`GROWTH` times as long as the one before, with distillation from the original, and continues from
its weights: a cosine schedule with a warm restart (Loshchilov & Hutter 2017, arXiv 1608.03983). A
shape survives while its loss on `select` is within what later rungs may still win back, and the
fastest survivors go on. Whoever comes through is quantized, with and without training for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from fettle.core.recipe import Recipe, parse_step
from fettle.search.strategies._shapes import Shape, shapes
from fettle.search.strategies._strategy import Strategy
from fettle.search.study import Candidate

if TYPE_CHECKING:
    from fettle.core.plugin import Plugin
    from fettle.search._trial import Trial
    from fettle.search.optimize import Search

RUNGS = (1, 3, 9, 27)  # epochs
GROWTH = 3
# how many times the budget a shape may have lost after each rung and still go on
PATIENCE = (10.0, 5.0, 2.5, 1.5)
_STATIC = "quantize.static"
_AWARE = "quantize.aware(epochs=2)"


class InRounds(Strategy):
    """Depth and width by measured time, then training by successive halving."""

    order: ClassVar[int] = 30
    title: ClassVar[str] = "smaller shapes: time them untrained, train in rounds"

    def applies(self, search: Search) -> bool:
        """Say whether there is a torch module to prune and data to train it with."""
        source = search.workshop.source
        return not source.is_onnx and search.task.size("train") > 0

    def explore(self, search: Search) -> None:
        """Train what is faster than the leader, rung by rung; quantize what comes through."""
        field = shapes(search)
        most = len(field)
        taught: tuple[Plugin, ...] = ()
        for epochs, patience in zip(RUNGS, PATIENCE, strict=True):
            taught = (*taught, parse_step(f"distill.logits(epochs={epochs})"))
            field = self._rung(search, field[:most], taught, patience)
            most = max(most // GROWTH, 1)
            self._finish(search, field, taught)

    def _rung(
        self, search: Search, field: list[Shape], taught: tuple[Plugin, ...], patience: float
    ) -> list[Shape]:
        """Train each shape to this rung; return those that can still win, the fastest first."""
        allowed = patience * max(search.setting.budget.max_drop, 0.002)
        kept: list[tuple[Shape, float]] = []
        for shape in field:
            trial = search.sketch(
                Recipe((*shape.trained(*taught), parse_step(_STATIC))), score=True
            )
            if trial is not None:
                kept.append((shape, trial.row["drop"]["value"]))
        within = [shape for shape, drop in kept if drop <= allowed]
        nearest = sorted(kept, key=lambda pair: pair[1])[:1]
        return within or [shape for shape, _ in nearest]

    def _finish(self, search: Search, field: list[Shape], taught: tuple[Plugin, ...]) -> None:
        """Attempt in full what came through, the fastest first, until one is likely."""
        for shape in field:
            for last in (_STATIC, _AWARE):
                made = search.attempt(
                    Candidate(Recipe((*shape.trained(*taught), parse_step(last))))
                )
                if any(_is_likely(trial) for trial in made):
                    return


def _is_likely(trial: Trial) -> bool:
    from fettle.search._promise import LIKELY

    return float(trial.row.get("promise", 0.0)) >= LIKELY
