"""The space of the outer choices: what is removed, in which order, how it is taught, how it ends.

It is read off the plug-ins: their knobs' bounds are the ranges. Searched are knobs with a choice of
values and ranges of real numbers; whole numbers (batch sizes, samples) say how much work is done,
and a control such as `random` is no candidate. How long is taught is a schedule of rungs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from fettle.core.errors import KnobError
from fettle.core.knobs import Choice, Knob, Range
from fettle.core.plugin import Plugin
from fettle.core.recipe import Recipe
from fettle.core.shelf import TECHNIQUES

if TYPE_CHECKING:
    from fettle.search.optimize import Wish

SCHEDULES = {"3": (3,), "1+3": (1, 3), "3+9": (3, 9), "1+3+9": (1, 3, 9)}  # epochs of the rungs
STEP, MOST = 0.05, 0.9  # of a ratio
_LASTS = ("quantize.static", "quantize.aware")
_LAST_EPOCHS = (1, 2, 4)
_CONTROLS = ("random",)
_FIXED = ("optimizer", "precision")  # learning rates are those of the default; speed, not quality
_DIGITS = 2
_AROUND = 4.0  # times and parts of the default: how far a knob without natural ends is moved
Params = Mapping[str, Any]


class Suggests(Protocol):
    """What is needed of Optuna's trial."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Return a number of a range."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Return one of a few values."""


@dataclass(frozen=True)
class Choices:
    """One point of the space: a shape without training, then rungs of teaching, then the last."""

    shape: tuple[Plugin, ...]
    rungs: tuple[Plugin, ...]
    last: Plugin


@dataclass(frozen=True)
class Space:
    """The plug-ins to choose among: what removes, what teaches, what quantizes at the end."""

    shapers: tuple[type[Plugin], ...]
    teachers: tuple[type[Plugin], ...]
    lasts: tuple[type[Plugin], ...]

    def __bool__(self) -> bool:
        return bool(self.shapers and self.teachers and self.lasts)

    @property
    def orders(self) -> list[str]:
        """Every order in which the shapers can follow each other, as one word."""
        names = [cls.name() for cls in self.shapers]
        return [">".join(order) for order in itertools.permutations(names)]

    def suggest(self, trial: Suggests) -> Choices:
        """Return what a trial of Optuna's chooses."""
        order = self.orders[0]
        if len(self.shapers) > 1:
            order = trial.suggest_categorical("order", self.orders)
        by_name = {cls.name(): cls for cls in self.shapers}
        shape = [_shaper(trial, by_name[name]) for name in order.split(">")]
        teacher = _one(trial, "teacher", self.teachers)
        knobs = _knobs(trial, teacher)
        rungs = SCHEDULES[trial.suggest_categorical("schedule", list(SCHEDULES))]
        return Choices(
            tuple(step for step in shape if step is not None),
            tuple(teacher(**knobs | {"epochs": epochs}) for epochs in rungs),
            _last(trial, _one(trial, "last", self.lasts)),
        )

    def params(self, recipe: Recipe) -> dict[str, Any]:
        """Return what of a recipe lies in this space, to begin from: parameters by their names."""
        found: dict[str, Any] = {}
        steps = {step.name(): step for step in recipe.steps}
        for cls in self.shapers:
            step = steps.get(cls.name())
            ratio = float(getattr(step, "ratio", 0.0))
            found[f"{cls.name()}.ratio"] = round(STEP * round(min(ratio, MOST) / STEP), _DIGITS)
            found |= _values(step) if step else {}
        for role, pool in (("teacher", self.teachers), ("last", self.lasts)):
            step = next((steps[c.name()] for c in pool if c.name() in steps), None)
            if step:
                found |= {role: step.name()} if len(pool) > 1 else {}
                found |= _values(step)
        return found | self._order_of(recipe)

    def _order_of(self, recipe: Recipe) -> dict[str, str]:
        names = [cls.name() for cls in self.shapers]
        used = [step.name() for step in recipe.steps if step.name() in names]
        order = ">".join([*dict.fromkeys(used), *(name for name in names if name not in used)])
        return {"order": order} if len(names) > 1 else {}


def space_of(wish: Wish) -> Space:
    """Return the space that a wish allows; which plug-ins suit a model is found by trying."""
    return Space(
        tuple(cls for cls in _allowed(wish, "prune.") if _only_removes(cls)),
        tuple(_allowed(wish, "distill.")),
        tuple(cls for cls in _allowed(wish, "quantize.") if cls.name() in _LASTS),
    )


def _allowed(wish: Wish, shelf: str) -> list[type[Plugin]]:
    names = [name for name in TECHNIQUES.names() if name.startswith(shelf)]
    found = [TECHNIQUES.load(name) for name in names]
    return [cls for cls in found if wish.allows(Recipe((cls(),)))]


def _only_removes(cls: type[Plugin]) -> bool:
    """Say whether a plug-in takes a share away, and can do so without training."""
    try:
        cls(ratio=0.5, epochs=0)  # type: ignore[call-arg]
    except (TypeError, KnobError):
        return False
    return True


def _one(trial: Suggests, name: str, pool: Sequence[type[Plugin]]) -> type[Plugin]:
    by_name = {cls.name(): cls for cls in pool}
    if len(by_name) == 1:
        return pool[0]
    return by_name[trial.suggest_categorical(name, list(by_name))]


def _shaper(trial: Suggests, cls: type[Plugin]) -> Plugin | None:
    """Return what removes, or None where nothing is to go."""
    share = trial.suggest_float(f"{cls.name()}.ratio", 0.0, MOST, step=STEP)
    ratio = round(share, _DIGITS)
    if not ratio:
        return None
    chosen = {knob.name: _pick(trial, cls, knob) for knob in cls.knobs() if options_of(knob)}
    return cls(ratio=ratio, epochs=0, **chosen)  # type: ignore[call-arg]


def _last(trial: Suggests, cls: type[Plugin]) -> Plugin:
    knobs = _knobs(trial, cls)
    if any(knob.name == "epochs" for knob in cls.knobs()):
        knobs["epochs"] = trial.suggest_categorical(f"{cls.name()}.epochs", list(_LAST_EPOCHS))
    return cls(**knobs)


def _knobs(trial: Suggests, cls: type[Plugin]) -> dict[str, Any]:
    """Return a value of each knob that is searched."""
    found = {knob.name: _pick(trial, cls, knob) for knob in cls.knobs() if options_of(knob)}
    for knob in cls.knobs():
        ends = ends_of(knob)
        if ends:
            low, high, log = ends
            value = trial.suggest_float(f"{cls.name()}.{knob.name}", low, high, log=log)
            found[knob.name] = float(f"{value:.{_DIGITS}g}")
    return found


def _pick(trial: Suggests, cls: type[Plugin], knob: Knob) -> Any:
    return trial.suggest_categorical(f"{cls.name()}.{knob.name}", options_of(knob))


def options_of(knob: Knob) -> list[Any]:
    """Return the values to choose among, without controls; none where it is no choice of names."""
    if not isinstance(knob.bounds, Choice) or knob.type is int or knob.name in _FIXED:
        return []
    return [value for value in knob.bounds.options if value not in _CONTROLS]


def ends_of(knob: Knob) -> tuple[float, float, bool] | None:
    """Return low, high and whether by logarithm, of a knob that is a range of real numbers."""
    bounds, default = knob.bounds, knob.default
    if not isinstance(bounds, Range) or knob.type is not float or not isinstance(default, float):
        return None
    if bounds.high <= 1 and not bounds.log:
        return bounds.low, bounds.high, False
    if default <= 0 or math.isinf(bounds.high):
        return None
    return max(bounds.low, default / _AROUND), min(bounds.high, default * _AROUND), True


def _values(step: Plugin) -> dict[str, Any]:
    """Return the searched knobs of a step by their names in the space."""
    found = {}
    for knob in step.knobs():
        value, options, ends = getattr(step, knob.name), options_of(knob), ends_of(knob)
        if value in options or (ends and knob.name != "ratio" and ends[0] <= value <= ends[1]):
            found[f"{step.name()}.{knob.name}"] = value
    return found
