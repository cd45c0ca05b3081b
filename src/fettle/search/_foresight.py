"""Foresight: which sketches can be spared, for a prediction says that they would be too slow.

It learns from every shape that was built and timed, and speaks up once it knows its own error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from fettle.core.arrays import Arrays, repeat_to
from fettle.core.errors import FettleError
from fettle.search.latency_model import LatencyModel, Predicted

if TYPE_CHECKING:
    from fettle.core.recipe import Recipe
    from fettle.runtimes import Runtime
    from fettle.search._trial import Trial
    from fettle.search.workshop import Workshop

Found = TypeVar("Found")


class Foresight:
    """Predicts what sketches will take at one batch, and writes down how right that was.

    Runtimes and lowerings have a latency model each, for they run different kernels.
    """

    def __init__(self, workshop: Workshop, batch: int) -> None:
        self.workshop, self.batch = workshop, batch
        self._models: dict[str, LatencyModel] = {}
        self._foretold: dict[Path, tuple[str, Predicted]] = {}
        self._blind: set[str] = set()

    @property
    def ready(self) -> bool:
        """Whether enough was learned for anything to be predicted."""
        return any(model.error() for model in self._models.values())

    def predict(
        self, recipe: Recipe, runtime: Runtime, lowering: tuple[str, ...] = ()
    ) -> Predicted | None:
        """Return what a recipe's artifact will take, or None while too little is known to say."""
        model = self._models.get(_name(runtime, lowering))
        if model is None or model.error() is None or _name(runtime, lowering) in self._blind:
            return None
        try:
            path = self.workshop.make(recipe).path
        except FettleError:
            return None  # the sketch will say why
        found = self._try(model, lambda: model.predict(path))
        if found is not None:
            self._foretold[path] = str(recipe), found
            self._tell("predicted", str(recipe), found)
        return found

    def learn(self, trial: Trial, ms: float) -> None:
        """Learn from a sketch that was timed: `ms`, comparable to those of the other sketches."""
        name, path = _name(trial.runtime, trial.lowering), trial.model
        if name in self._blind or not isinstance(path, Path):
            return
        if name not in self._models:
            self._models[name] = LatencyModel(trial.runtime, self._inputs, trial.lowering)
        model = self._models[name]
        self._try(model, lambda: model.observe(path, ms))
        if path in self._foretold:
            self._tell("foretold", *self._foretold.pop(path), truth_ms=ms)

    @cached_property
    def _inputs(self) -> Arrays:
        return repeat_to(self.workshop.task.example_inputs(self.batch), self.batch)

    def _try(self, model: LatencyModel, work: Callable[[], Found]) -> Found | None:
        """Do the work; an engine or a graph that can't be predicted is not asked again."""
        try:
            return work()
        except Exception as error:  # strangers' graphs hold surprises, and a sketch does without
            self._blind.add(_name(model.runtime, model.lowering))
            runtime = str(model.runtime)
            self.workshop.store.journal.write("unpredictable", runtime=runtime, why=str(error))
            return None

    def _tell(self, event: str, recipe: str, found: Predicted, **truth: float) -> None:
        self.workshop.store.journal.write(event, recipe=recipe, **found.to_json(), **truth)


def general(lowering: Sequence[str]) -> tuple[str, ...]:
    """Return the steps that name no layers of their own, which other shapes may not have."""
    return tuple(step for step in lowering if "(" not in step)


def _name(runtime: Runtime, lowering: tuple[str, ...]) -> str:
    return f"{runtime} {lowering}"
