"""Outer choices: technique order, ratios and schedules, each chosen by what came of the others.

Optuna's tree-structured Parzen estimator (Bergstra et al. 2011) is asked for a point of the space
and told what came of it: the time of a request, and as a constraint how far the promise is from
likely. It begins with the best recipes so far. A point is built untrained and timed first; what is
no faster than the leader is told so, and not trained. The others are taught rung by rung while
their loss can still be won back, then quantized and attempted in full.

Nothing is stored by Optuna: the journal holds what was asked and told, so that a search that is
continued asks the same again, and its stages are found.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from fettle.core.recipe import Recipe, parse_step
from fettle.search._promise import LIKELY
from fettle.search.strategies._asking import Asking
from fettle.search.strategies._pace import Pace
from fettle.search.strategies._space import SCHEDULES, Choices, Space, space_of
from fettle.search.strategies._strategy import Strategy
from fettle.search.study import Candidate

if TYPE_CHECKING:
    from fettle.core.plugin import Plugin
    from fettle.search._trial import Trial
    from fettle.search.optimize import Search

NO_GAIN = 12  # points in a row without a better leader, and it ends
MOST = 200
STARTS = 3  # recipes to begin from
PATIENCE = (10.0, 5.0, 2.5)  # times the budget that may be lost after each rung
NEAR = 2.0  # times the budget: what quantization-aware training may win back
LEAST_BUDGET = 0.002
EPOCHS = [sum(rungs) for rungs in SCHEDULES.values()]
_PROBE = 0.5
_STATIC = "quantize.static"


@dataclass(frozen=True)
class Told:
    """What came of a point: ms a request; how far it is from likely to be proven, ≤ 0 if it is.

    A point that was not trained, for being too slow, is no further away than the line.
    """

    ms: float
    short: float


class Outer(Strategy):
    """Orders, ratios, schedules and the knobs of the plug-ins, by Optuna's ask and tell."""

    order: ClassVar[int] = 40
    title: ClassVar[str] = "outer choices: order, ratios and schedules, by what came of the others"
    instead: ClassVar[str] = (
        f"shapes that are timed first, then trained for {min(EPOCHS)} to {max(EPOCHS)} epochs,"
        f" until {NO_GAIN} in a row gain nothing"
    )

    def applies(self, search: Search) -> bool:
        """Say whether there is a torch module, data to train it with, and something to choose."""
        source = search.workshop.source
        if source.is_onnx or not search.task.size("train") or not space_of(search.wish):
            return False
        if importlib.util.find_spec("optuna") is None:
            search.progress.say("no outer choices without Optuna: pip install 'fettle[search]'")
            return False
        return True

    def explore(self, search: Search) -> None:
        """Ask and try, until nothing was gained for long or the time is up."""
        space = _that_suits(search, space_of(search.wish))
        if not space:
            return
        asking, pace = Asking(search, space, starts(search)), Pace(search.clock)
        idle = 0
        while idle < NO_GAIN and asking.asked < MOST:
            before = search.objective.cost(search.leader)
            choices = asking.ask()
            told = self._try(search, choices, pace)
            if told is None:
                return
            asking.tell(told.ms, told.short)
            idle = 0 if search.objective.cost(search.leader) < before else idle + 1

    def _try(self, search: Search, choices: Choices, pace: Pace) -> Told | None:
        """Return what comes of a point; None where there is no time for one."""
        shape = _sketch(search, choices.shape)
        if shape is None:  # can't be made: as bad as what is far from likely
            return Told(search.base.row["comparable_ms"], 1.0)
        ms = shape.row["comparable_ms"]
        if ms > search.leader.row["comparable_ms"] * (1 - search.least_gain):
            return Told(ms, 0.0)
        taught = _taught(search, choices, pace)
        if taught is None:
            return None
        told = Told(ms, LIKELY - taught.promise)
        if taught.near:
            told = _finished(search, Recipe((*taught.steps, choices.last)), told)
        return None if taught.cut else told


@dataclass(frozen=True)
class Taught:
    """How far a shape came; `near` says that it is worth to be quantized and attempted.

    `cut` says that the time was too short for the next rung; such a point is not told, for with
    more time it comes out otherwise.
    """

    steps: tuple[Any, ...]
    promise: float
    near: bool
    cut: bool = False


def _taught(search: Search, choices: Choices, pace: Pace) -> Taught | None:
    """Teach a shape rung by rung, while its loss can be won back; None without time for one."""
    budget = max(search.setting.budget.max_drop, LEAST_BUDGET)
    come: Taught | None = None
    steps = choices.shape
    for rung, teach in enumerate(choices.rungs):
        wanted = int(teach.values()["epochs"])
        if pace.epochs(wanted, wanted) < wanted:
            return come and replace(come, cut=True)
        steps = (*steps, teach)
        trial = _sketch(search, steps, score=True)
        if trial is None:
            return Taught(steps, 0.0, near=False)
        pace.observe(trial, teach)
        drop, promise = float(trial.row["drop"]["value"]), _promise(trial)
        come = Taught(steps, promise, near=promise >= LIKELY or drop <= NEAR * budget)
        if drop > PATIENCE[rung] * budget:
            return come
    return come


def starts(search: Search) -> list[Recipe]:
    """Return the recipes to begin from: the best of those likely to be proven, then the nearest."""
    made = [t for t in search.trials if "promise" in t.row and len(t.recipe.steps) > 1]
    ordered = sorted(made, key=lambda t: (_promise(t) < LIKELY, search.objective.cost(t)))
    return list(dict.fromkeys(Recipe(t.recipe.steps) for t in ordered))[:STARTS]


def _that_suits(search: Search, space: Space) -> Space:
    """Return the space without the shapers that can't work on this model."""
    kept = [cls for cls in space.shapers if _sketch(search, (_half(cls),)) is not None]
    return Space(tuple(kept), space.teachers, space.lasts)


def _half(cls: type[Plugin]) -> Plugin:
    return cls(ratio=_PROBE, epochs=0)  # type: ignore[call-arg]


def _sketch(search: Search, steps: tuple[Any, ...], score: bool = False) -> Trial | None:
    return search.sketch(Recipe((*steps, parse_step(_STATIC))), score=score)


def _finished(search: Search, recipe: Recipe, otherwise: Told) -> Told:
    """Attempt a recipe in full; return the best that came of it."""
    made = [t for t in search.attempt(Candidate(recipe)) if "promise" in t.row]
    if not made:
        return otherwise
    likely = [t for t in made if _promise(t) >= LIKELY]
    best = min(likely or made, key=search.objective.cost)
    return Told(best.row["comparable_ms"], LIKELY - _promise(best))


def _promise(trial: Trial) -> float:
    return float(trial.row.get("promise", 0.0))
