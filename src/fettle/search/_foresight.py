"""Foresight: which sketches can be spared, for a prediction says that they would be too slow.

It learns from every shape that was built and timed, and speaks up once it knows its own error.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from fettle.core.errors import FettleError
from fettle.search.latency_model import LatencyModel, Predicted

if TYPE_CHECKING:
    from fettle.core.arrays import Arrays
    from fettle.runtimes import Runtime
    from fettle.search._trial import Trial
    from fettle.search.journal import Journal

Found = TypeVar("Found")


class Foresight:
    """Predicts what sketches will take, and writes down how right that was.

    `inputs` is one batch as the study times it. Runtimes and lowerings have a model each, for they
    run different kernels.
    """

    def __init__(self, inputs: Arrays, journal: Journal) -> None:
        self.inputs, self.journal = inputs, journal
        self._models: dict[str, LatencyModel] = {}
        self._foreseen: dict[Path, Predicted] = {}
        self._blind: set[str] = set()

    def predict(
        self, path: Path, runtime: Runtime, lowering: tuple[str, ...] = ()
    ) -> Predicted | None:
        """Return what a model will take, or None while too little is known to say."""
        model = self._model(runtime, lowering)
        if model is None or model.error() is None:
            return None
        found = self._try(model, lambda: model.predict(path))
        if found is not None:
            self._foreseen[path] = found
            self._tell("predicted", path, found)
        return found

    def learn(self, trial: Trial, ms: float) -> None:
        """Learn from a sketch that was timed: `ms`, comparable to those of the other sketches."""
        model, path = self._model(trial.runtime, trial.lowering), trial.model
        if model is None or not isinstance(path, Path):
            return
        self._try(model, lambda: model.observe(path, ms))
        if path in self._foreseen:
            self._tell("foreseen", path, self._foreseen.pop(path), truth_ms=ms)

    def _model(self, runtime: Runtime, lowering: tuple[str, ...]) -> LatencyModel | None:
        name = f"{runtime} {lowering}"
        if name in self._blind:
            return None
        if name not in self._models:
            self._models[name] = LatencyModel(runtime, self.inputs, lowering)
        return self._models[name]

    def _try(self, model: LatencyModel, work: Callable[[], Found]) -> Found | None:
        """Do the work; an engine or a graph that can't be predicted is not asked again."""
        try:
            return work()
        except FettleError as error:
            self._blind.add(f"{model.runtime} {model.lowering}")
            self.journal.write("unpredictable", runtime=str(model.runtime), why=str(error))
            return None

    def _tell(self, event: str, path: Path, found: Predicted, **truth: float) -> None:
        self.journal.write(event, stage=path.parent.name, **found.to_json(), **truth)
