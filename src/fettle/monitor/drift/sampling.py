"""A log's rows and kept examples as windows of columns, in bounded memory."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fettle.core.arrays import Arrays
from fettle.monitor._reading import LogFile
from fettle.monitor.drift.features import Columns, class_names, columns_of
from fettle.monitor.drift.report import Sample
from fettle.monitor.frame import Frame, Origin
from fettle.monitor.latency import fitting
from fettle.monitor.prediction import OK, Prediction
from fettle.monitor.windows import Window, by_count, by_time

_SECOND = 10**9
_MOST = 2000  # examples of a window whose arrays are looked at
_ROWS = 20_000  # of a window: more would not make a reference of hundreds any surer
_AT_ONCE = 64  # requests whose arrays are held together
_SHADOW = "shadow"


@dataclass(frozen=True)
class Cut:
    """How a log is cut, and whose rows are taken.

    Attributes:
        seconds: length of a window; None for some dozens in all.
        count: rows of a window; it comes before `seconds`.
        sha: of the bundle whose answers are meant; those of all where the log knows no such bundle.
        labels: names of its classes.
    """

    seconds: float | None = None
    count: int | None = None
    sha: str = ""
    labels: Sequence[str] = ()


def windows_of(log: LogFile, cut: Cut | None = None) -> list[Sample]:
    """Return the windows of a log: class and confidence of all rows, the rest of kept examples.

    Only answers are taken, no failures, and none of shadows. Of a window's examples some thousand
    are taken, each with the same chance.

    Raises:
        InputError: windows of no length.
        DataError: the log is damaged.
    """
    asked = cut or Cut()
    chosen = answering(log, asked.sha)
    names = named_classes(log, asked.labels)
    found = [
        (window.start, window.n, _answers(window.frame, names))
        for window in _cut(log, asked, chosen)
    ]
    kept = _examples(log, [start for start, _, _ in found], chosen, asked)
    return [
        Sample(start / _SECOND, n, {**columns, **kept[at].columns()})
        for at, (start, n, columns) in enumerate(found)
    ]


def whole(log: LogFile, cut: Cut | None = None) -> Columns:
    """Return the columns of a whole log: a reference, where there is no bundle.

    Raises:
        DataError: the log is damaged, or holds no answers.
    """
    asked = cut or Cut()
    samples = windows_of(log, Cut(None, max(1, len(log)), asked.sha, asked.labels))
    return dict(samples[0].columns) if samples else {}


def answering(log: LogFile, sha: str = "") -> frozenset[int]:
    """Return the origins whose rows are answers: of the bundle `sha` where the log knows it."""
    sound = {
        number: origin
        for number, origin in log.origins.items()
        if origin.status == OK and origin.route != _SHADOW
    }
    known = {number for number, origin in sound.items() if sha and origin.sha == sha}
    return frozenset(known or sound)


def named_classes(log: LogFile, labels: Sequence[str]) -> Sequence[str]:
    """Return the names of classes: a table may number them in an order of its own."""
    classes = getattr(log, "classes", None)
    return tuple(classes) if classes else labels


def _cut(log: LogFile, cut: Cut, chosen: frozenset[int]) -> Iterator[Window]:
    numbers = sorted(chosen)
    frames = (
        frame.take(np.isin(frame["origin"], numbers)) for frame in log.frames(("top", "confidence"))
    )
    if cut.count is not None:
        return by_count(frames, cut.count)
    return by_time(frames, cut.seconds or fitting(log.span), _ROWS)


def _answers(frame: Frame, labels: Sequence[str]) -> Columns:
    """Return class and confidence; a prediction that is no class is a number."""
    tops, confidence = frame["top"], frame["confidence"]
    found: Columns = {}
    there = tops[np.isfinite(tops)]
    if len(there) and (there == np.floor(there)).all() and there.min() >= 0:
        found["class"] = class_names(tops, labels)
    elif len(there):
        found["prediction"] = tops
    if np.isfinite(confidence).any():
        found["confidence"] = confidence
    return found


def _examples(
    log: LogFile, starts: list[int], chosen: frozenset[int], cut: Cut
) -> list[_Reservoir]:
    """Return the examples of each window, as columns."""
    kept = [_Reservoir(at) for at in range(len(starts))]
    origins: set[Origin] = {log.origins[number] for number in chosen}
    for place, piece in _pieces(_placed(log, starts, origins)):
        for rows in _stacked(piece):
            kept[place].add(columns_of(*rows, cut.labels, tops=False))
    return kept


def _placed(
    log: LogFile, starts: list[int], origins: set[Origin]
) -> Iterator[tuple[int, Prediction]]:
    for row in log.rows(examples=True):
        place = bisect.bisect_right(starts, row.time) - 1
        if place >= 0 and _origin(row) in origins:
            yield place, row


def _origin(row: Prediction) -> Origin:
    return Origin(row.model, row.version, row.sha, row.route, row.protocol, row.status)


def _pieces(
    placed: Iterable[tuple[int, Prediction]],
) -> Iterator[tuple[int, list[Prediction]]]:
    """Yield rows of one window, some at a time."""
    held: list[Prediction] = []
    before = -1
    for place, row in placed:
        if held and (place != before or len(held) >= _AT_ONCE):
            yield before, held
            held = []
        before = place
        held.append(row)
    if held:
        yield before, held


def _stacked(rows: Sequence[Prediction]) -> Iterator[tuple[Arrays, Arrays]]:
    """Yield inputs and outputs of requests that are shaped alike, one after another."""
    alike: dict[Any, list[Prediction]] = {}
    for row in rows:
        alike.setdefault((_shape(row.inputs), _shape(row.outputs)), []).append(row)
    for group in alike.values():
        yield _joined([r.inputs or {} for r in group]), _joined([r.outputs or {} for r in group])


def _shape(arrays: Arrays | None) -> tuple[Any, ...]:
    return tuple((name, a.dtype.str, a.shape[1:]) for name, a in (arrays or {}).items())


def _joined(arrays: Sequence[Arrays]) -> dict[str, np.ndarray]:
    names = [name for name in arrays[0] if arrays[0][name].ndim]
    return {name: np.concatenate([each[name] for each in arrays]) for name in names}


@dataclass
class _Reservoir:
    """Examples of one window: of many, those with the smallest of random numbers."""

    seed: int
    pieces: list[tuple[np.ndarray, Columns]] = field(default_factory=list)
    held: int = 0

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(self.seed)

    def add(self, columns: Columns) -> None:
        n = max((len(values) for values in columns.values()), default=0)
        self.pieces.append((self._random.random(n), columns))
        self.held += n
        if self.held > 2 * _MOST:
            self._thin()

    def columns(self) -> Columns:
        self._thin()
        names = dict.fromkeys(name for _, piece in self.pieces for name in piece)
        return {name: _together([p[name] for _, p in self.pieces if name in p]) for name in names}

    def _thin(self) -> None:
        if self.held <= _MOST:
            return
        chances = np.concatenate([chance for chance, _ in self.pieces])
        limit = np.partition(chances, _MOST - 1)[_MOST - 1]
        self.pieces = [
            (chance[chance <= limit], {name: v[chance <= limit] for name, v in piece.items()})
            for chance, piece in self.pieces
            if (chance <= limit).any()
        ]
        self.held = sum(len(chance) for chance, _ in self.pieces)


def _together(values: Sequence[np.ndarray]) -> np.ndarray:
    """Return one column; rows of another width than the first's are left out."""
    fitting_ones = [each for each in values if each.shape[1:] == values[0].shape[1:]]
    return np.concatenate(fitting_ones)
