"""Windows held against a reference, column by column, corrected for there being many.

```python
reference = bundle_columns(bundle.reference(), bundle.manifest.labels)
report = compare(reference, windows_of(log, 3600), Plan(correction="holm"))
```

An alarm is of one feature in one window. With Holm's correction a clean window alarms at all with a
chance of at most alpha, so of a hundred clean windows some five do: `drifted` therefore asks for
two of the last three.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from fettle.core.errors import DataError, InputError
from fettle.core.shelf import DETECTORS
from fettle.monitor.drift._detector import Detector, DriftScore, Fitted, Kind, kind_of, known
from fettle.monitor.drift.correction import CORRECTIONS

_RECENT, _OF_THEM, _SHOWN = 3, 2, 5
_LEAST = 8  # values of a reference


@dataclass(frozen=True, eq=False)
class Sample:
    """Columns of a window: floats are numbers, other types classes, tables of floats vectors.

    Attributes:
        start: in seconds of the epoch.
        n: requests of the window, of which columns may hold fewer.
    """

    start: float
    n: int
    columns: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Plan:
    """How drift is looked for: a detector for each kind of column, as it prints, and the level.

    Raises:
        InputError: no such correction, or a level that is none.
    """

    number: str = "drift.kolmogorov_smirnov"
    class_: str = "drift.chi_square"
    vector: str = "drift.mmd"
    correction: str = "holm"
    alpha: float = 0.05

    def __post_init__(self) -> None:
        if self.correction not in CORRECTIONS:
            raise InputError(
                f"`correction` expects {' or '.join(CORRECTIONS)}, got {self.correction!r}"
            )
        if not 0 < self.alpha < 1:
            raise InputError(f"`alpha` expects a number between 0 and 1, got {self.alpha!r}")

    def detector(self, kind: Kind, features: int) -> Detector:
        """Return the detector of a kind, its p-values fine enough for so many features."""
        names = {"number": self.number, "class": self.class_, "vector": self.vector}
        made = DETECTORS.make(names[kind])
        assert isinstance(made, Detector)
        if kind not in made.kinds:
            raise InputError(f"`{made.name()}` takes {' and '.join(made.kinds)}, no {kind} columns")
        return made.but(
            resamples=min(99_999, max(made.resamples, math.ceil(2 * features / self.alpha)))
        )


@dataclass(frozen=True)
class Judged:
    """One feature in one window; `adjusted` is its p-value after the correction."""

    score: DriftScore
    adjusted: float
    alarm: bool

    def to_json(self, start: float) -> dict[str, Any]:
        """Return the JSON form."""
        plain = asdict(self.score)
        return {
            "start": start,
            "score": plain.pop("statistic"),
            **plain,
            "adjusted": self.adjusted,
            "alarm": self.alarm,
        }


@dataclass(eq=False)
class DriftReport:
    """What was found.

    Attributes:
        plan: by which it was looked for.
        detectors: of each feature, by name.
        windows: each window's start, requests and judged features.
        skipped: why a feature was not looked at, at some time.
    """

    plan: Plan
    detectors: dict[str, str] = field(default_factory=dict)
    windows: list[tuple[float, int, dict[str, Judged]]] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def drifted(self) -> bool:
        """Whether two of the last three windows alarm, or all of fewer."""
        return self.moved("")

    def moved(self, prefix: str) -> bool:
        """Say so of the features whose names begin with `prefix`."""
        recent = [self._alarms(found, prefix) for _, _, found in self.windows[-_RECENT:]]
        return bool(recent) and sum(map(bool, recent)) >= min(_OF_THEM, len(recent))

    def knows(self, prefix: str) -> bool:
        """Say whether any such feature was looked at."""
        return any(name.startswith(prefix) for _, _, found in self.windows for name in found)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, features by name with all their windows."""
        return {
            "drifted": self.drifted,
            "alpha": self.plan.alpha,
            "correction": self.plan.correction,
            "corrected": "over the features of one window",
            "windows": [self._window(*each) for each in self.windows],
            "features": [self._feature(name) for name in self.detectors],
            "skipped": self.skipped,
        }

    def _window(self, start: float, n: int, found: dict[str, Judged]) -> dict[str, Any]:
        alarms = self._alarms(found, "")
        return {"start": start, "n": n, "drifted": bool(alarms), "moved": alarms[:_SHOWN]}

    def _feature(self, name: str) -> dict[str, Any]:
        seen = ((start, found[name]) for start, _, found in self.windows if name in found)
        windows = [judged.to_json(start) for start, judged in seen]
        return {"name": name, "detector": self.detectors[name], "windows": windows}

    def _alarms(self, found: dict[str, Judged], prefix: str) -> list[str]:
        """Return the features that alarm, the one that moved most first."""
        named = [name for name, each in found.items() if each.alarm and name.startswith(prefix)]
        return sorted(named, key=lambda name: (found[name].adjusted, -_ratio(found[name].score)))


def compare(
    reference: Mapping[str, np.ndarray], windows: Iterable[Sample], plan: Plan | None = None
) -> DriftReport:
    """Hold windows against the reference.

    A column is looked at where both hold it. Numbers that aren't there (NaN, infinite) are left
    out, and how many there are is a feature of its own; a number that never varies in the
    reference is held against being that number.

    Args:
        reference: columns by name, each of its own length.
        windows: one after another; none is kept.
        plan: detectors, correction and level.

    Raises:
        InputError: a detector that doesn't take its kind, or columns of no known shape.
        DataError: windows and reference have no column in common.
        MissingError: a detector needs what isn't installed.
    """
    wanted = plan or Plan()
    report, bench = DriftReport(wanted), _Bench(reference, wanted)
    report.skipped |= bench.skipped
    asked = False
    for window in windows:
        asked = True
        scores = dict(bench.scores(window.columns, report.skipped))
        names = list(scores)
        adjusted = CORRECTIONS[wanted.correction]([scores[name].p for name in names])
        found = {
            name: Judged(scores[name], float(p), bool(p <= wanted.alpha))
            for name, p in zip(names, adjusted, strict=True)
        }
        report.windows.append((window.start, window.n, found))
        report.detectors |= {name: bench.detectors[name] for name in names}
    if asked and not report.detectors and not report.skipped:
        raise DataError(
            f"the windows have none of the reference's columns ({', '.join(reference)})"
        )
    return report


class _Bench:
    """The detectors, fitted as they are needed."""

    def __init__(self, reference: Mapping[str, np.ndarray], plan: Plan) -> None:
        self._reference = {name: _cleared(values) for name, values in reference.items()}
        self._plan = plan
        self._fitted: dict[str, Fitted] = {}
        self.detectors: dict[str, str] = {}
        self.skipped = {
            name: f"the reference holds {len(values)} values, {_LEAST} were expected"
            for name, values in self._reference.items()
            if _there(values) < _LEAST
        }

    def scores(
        self, columns: Mapping[str, np.ndarray], skipped: dict[str, str]
    ) -> Iterator[tuple[str, DriftScore]]:
        for name, reference in self._reference.items():
            if name in self.skipped:
                continue
            if name not in columns:
                skipped.setdefault(name, "windows don't hold it")
                continue
            values = _cleared(np.asarray(columns[name]))
            yield from self._scored(name, reference, values, skipped)

    def _scored(
        self, name: str, reference: np.ndarray, values: np.ndarray, skipped: dict[str, str]
    ) -> Iterator[tuple[str, DriftScore]]:
        try:
            yield name, self._score(name, *_alike(reference, values))
        except DataError as error:
            skipped.setdefault(name, str(error))
        lost = [_missing(each) for each in (reference, values)]
        if len(values) and any(each.any() for each in lost):
            yield f"{name}: missing", self._score(f"{name}: missing", *lost)

    def _score(self, name: str, reference: np.ndarray, values: np.ndarray) -> DriftScore:
        if name not in self._fitted:
            detector = self._plan.detector(kind_of(reference), len(self._reference))
            self._fitted[name] = detector.fit(reference)
            self.detectors[name] = detector.name()
        return self._fitted[name].score(values, self._plan.alpha)


def _cleared(values: np.ndarray) -> np.ndarray:
    """Return values without classes that have no name."""
    array = np.asarray(values)
    if array.ndim == 1 and array.dtype.kind in "OU":
        texts = array.astype(str)
        return np.asarray(texts[(texts != "") & (texts != "None")])
    return array


def _there(values: np.ndarray) -> int:
    return int(len(values) - _missing(values).sum())


def _missing(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind != "f":
        return np.zeros(len(values), bool)
    finite = np.isfinite(values)
    return np.asarray(~(finite if values.ndim == 1 else finite.all(tuple(range(1, values.ndim)))))


def _alike(reference: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both as the same kind; a constant number becomes the class of being it."""
    if kind_of(reference) != kind_of(values):
        raise DataError(f"the reference has {kind_of(reference)} values, windows {kind_of(values)}")
    if kind_of(reference) != "number":
        return reference, values
    numbers = known(reference)
    if numbers.min() < numbers.max():
        return reference, values
    there = known(values)
    return numbers == numbers[0], np.isclose(there, numbers[0], rtol=1e-6, atol=0)


def _ratio(score: DriftScore) -> float:
    return score.statistic / score.threshold if score.threshold > 0 else math.inf
