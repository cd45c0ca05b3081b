"""Latency, traffic and failures over time: what a log says of each model, version and route.

Durations are those of requests that were answered: a refusal is quick, and would flatter. Every
figure comes with its interval and the number of requests behind it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from fettle.core.errors import InputError
from fettle.monitor._reading import Failure, LogFile
from fettle.monitor.frame import Frame, Origin
from fettle.monitor.histogram import Histogram
from fettle.monitor.prediction import OK

COLUMNS = ("batch", "queue_us", "compute_us", "total_us")
SATURATED = ("Busy", "Late")
_QUANTILES = (50, 95, 99)
_LENGTHS = (1, 5, 10, 30, 60, 300, 600, 1800, 3600, 21_600, 86_400, 604_800)  # seconds
_MANY = 60  # windows that are looked for
_MOST_CELLS = 4000  # of 54 KB each
_SECOND = 10**9


class Who(NamedTuple):
    """Whose requests are counted together."""

    model: str
    version: str
    sha: str
    route: str


@dataclass(eq=False)
class Cell:
    """Requests of one model and route in one window.

    Attributes:
        n: all of them.
        errors: those that failed, by status.
        total, queue, compute: how long the answered ones took.
        rows: of the engine's runs that answered them, summed.
    """

    n: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    total: Histogram = field(default_factory=Histogram)
    queue: Histogram = field(default_factory=Histogram)
    compute: Histogram = field(default_factory=Histogram)
    rows: float = 0.0

    def __iadd__(self, other: Cell) -> Cell:
        self.n += other.n
        self.errors += other.errors
        self.total += other.total
        self.queue += other.queue
        self.compute += other.compute
        self.rows += other.rows
        return self

    @property
    def waiting(self) -> float | None:
        """The share of their time that answered requests waited; None where that isn't known."""
        known = self.queue.n and self.total.total
        return self.queue.total / self.total.total if known else None

    def to_json(self, seconds: float | None = None) -> dict[str, Any]:
        """Return the JSON form; `seconds` is the window's length."""
        failed = sum(self.errors.values())
        answered = self.n - failed
        return {
            "n": self.n,
            "rate": self.n / seconds if seconds else None,
            "failed": share(failed, self.n),
            "saturated": share(sum(self.errors[name] for name in SATURATED), self.n),
            "errors": dict(self.errors.most_common()),
            "latency_ms": _durations(self.total),
            "queue_ms": _durations(self.queue),
            "compute_ms": _durations(self.compute),
            "waiting": self.waiting,
            "batch": self.rows / answered if answered and self.rows else None,
        }


@dataclass(frozen=True, eq=False)
class Summary:
    """What a log says.

    Attributes:
        seconds: how long a window is.
        cells: by whose requests they are, then by the window's start in nanoseconds of the epoch.
        failures: that read alike, the most frequent first.
        losses: what the log doesn't hold, by kind.
    """

    seconds: float
    cells: Mapping[Who, Mapping[int, Cell]]
    failures: Sequence[Failure]
    losses: Mapping[str, int]

    def overall(self, who: Who) -> Cell:
        """Return all windows of one model and route together."""
        found = Cell()
        for cell in self.cells[who].values():
            found += cell
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form; times are seconds of the epoch."""
        return {
            "window_seconds": self.seconds,
            "series": [self._series(who) for who in sorted(self.cells)],
            "failures": [_failure(each) for each in self.failures],
            "losses": dict(self.losses),
        }

    def _series(self, who: Who) -> dict[str, Any]:
        cells = self.cells[who]
        windows = [
            {"start": start / _SECOND, **cells[start].to_json(self.seconds)}
            for start in sorted(cells)
        ]
        return {**who._asdict(), "all": self.overall(who).to_json(), "windows": windows}


def summarize(log: LogFile, seconds: float | None = None, since: int | None = None) -> Summary:
    """Read a log once, and count.

    Args:
        log: of any length.
        seconds: of a window; None chooses one that gives at most some dozens.
        since: from which time on, in nanoseconds of the epoch; None for all. Kinds of failures and
            losses are always those of the whole log.

    Raises:
        InputError: so many windows that they don't fit into memory.
        DataError: the log is damaged.
    """
    length = seconds if seconds is not None else fitting(log.span)
    if not 1e-3 <= length <= 1e9:
        raise InputError(f"`seconds` expects a length from 1e-3 to 1e9, got {length!r}")
    counting = _Counting(round(length * _SECOND))
    rows = log.frames(COLUMNS, ordered=False) if since is None else log.frames(COLUMNS, since)
    for frame in rows:
        counting.add(frame)
    return Summary(length, counting.cells, log.failures(), log.losses)


def share(hits: int, n: int) -> dict[str, Any] | None:
    """Return a share with its exact 95 % interval (Clopper and Pearson, 1934); None of nothing."""
    if not n:
        return None
    low = float(stats.beta.ppf(0.025, hits, n - hits + 1)) if hits else 0.0
    high = float(stats.beta.ppf(0.975, hits + 1, n - hits)) if hits < n else 1.0
    return {"value": hits / n, "low": low, "high": high, "n": n}


class _Counting:
    """Counts frames into cells."""

    def __init__(self, width: int) -> None:
        self._width = width
        self.cells: dict[Who, dict[int, Cell]] = {}
        self._number = 0

    def add(self, frame: Frame) -> None:
        windows = frame["time"] // self._width
        for number in np.unique(frame["origin"]):
            origin = frame.origins[int(number)]
            ours = frame["origin"] == number
            for window in np.unique(windows[ours]):
                cell = self._cell(origin, int(window) * self._width)
                _count(cell, origin.status, frame, ours & (windows == window))

    def _cell(self, origin: Origin, start: int) -> Cell:
        who = Who(origin.model, origin.version, origin.sha, origin.route)
        cells = self.cells.setdefault(who, {})
        if start not in cells:
            self._number += 1
            if self._number > _MOST_CELLS:
                raise InputError(
                    f"windows of {self._width / _SECOND:g} s are too short for this log: there are"
                    f" more than {_MOST_CELLS}; take longer ones"
                )
            cells[start] = Cell()
        return cells[start]


def _count(cell: Cell, status: str, frame: Frame, which: np.ndarray) -> None:
    n = int(which.sum())
    cell.n += n
    if status != OK:
        cell.errors[status] += n
        return
    cell.rows += float(np.nansum(frame["batch"][which]))
    for histogram, name in (
        (cell.total, "total_us"),
        (cell.queue, "queue_us"),
        (cell.compute, "compute_us"),
    ):
        histogram.add(frame[name][which])


def fitting(span: tuple[int, int] | None) -> float:
    """Return the shortest round length of which few windows hold the span."""
    seconds = (span[1] - span[0]) / _SECOND if span else 0.0
    fits = (length for length in _LENGTHS if seconds / length <= _MANY)
    return float(next(fits, seconds / _MANY))


def _durations(histogram: Histogram) -> dict[str, Any]:
    quantiles: Iterable[tuple[int, Any]] = ((q, histogram.quantile(q / 100)) for q in _QUANTILES)
    found = {f"p{q}": value.to_json() if value else None for q, value in quantiles}
    return {**found, "mean": histogram.mean, "n": histogram.n}


def _failure(failure: Failure) -> dict[str, Any]:
    origin = failure.origin
    return {
        "model": origin.model,
        "version": origin.version,
        "route": origin.route,
        "status": origin.status,
        "error": failure.error,
        "n": failure.n,
        "first": failure.first / _SECOND,
        "last": failure.last / _SECOND,
        "id": failure.id,
    }
