"""Counting the two arms of an A/B test from a log, in the order of time and in bounded memory.

What is compared are callers, not requests: those of one caller are alike, and a test that took them
for independent would find differences where there are none. So a caller counts once, by the first
request whose outcome is known; a request without a key is a caller of its own. Who was counted is
remembered by a hash of 26 bits: some are taken for others and left out, whatever their arm.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from fettle.monitor._effect import Effect
from fettle.monitor._pair import A, B, Pair
from fettle.monitor.frame import Frame
from fettle.monitor.prediction import OK
from fettle.monitor.sequential import Interval

COLUMNS = ("key", "label", "top", "total_us")
_PLACES = 1 << 26
_FIRST = 1000  # answers of A that set how slow is slow
_HUNG_UP = "CancelledError"  # says nothing of the answer
_SLOW = 0.99
_MOST_STEPS = 60


class Crossing(NamedTuple):
    """The first moment at which the evidence was enough: when, and after how many callers."""

    time: int
    n: int


class Step(NamedTuple):
    """The effect as it was known at the end of a window, and after how many callers."""

    start: int
    n: int
    effect: Interval


@dataclass
class Arms:
    """What is known of both arms of one model.

    Attributes:
        callers: of each arm; `b.n` among all tells the share.
        effect: what is known of it.
        outcome: right answers of callers by arm.
        steps: the effect over time.
        windows: the same, by the start of the window in nanoseconds.
        failed: requests that failed, of all.
        slow: answers slower than `limit_us`, of those since it is known.
        limit_us: how slow is slow; None until it is known.
        crossed: when the outcome first differed for certain.
        unmatched: labels that name no class.
    """

    parts: tuple[str, str]
    width: int
    threshold: float
    classes: Mapping[str, int]
    labelled: bool
    effect: Effect
    limit_us: float | None = None
    callers: Pair = field(default_factory=Pair)
    outcome: Pair = field(default_factory=Pair)
    windows: dict[int, Pair] = field(default_factory=dict)
    failed: Pair = field(default_factory=Pair)
    slow: Pair = field(default_factory=Pair)
    crossed: Crossing | None = None
    steps: list[Step] = field(default_factory=list)
    unmatched: int = 0
    _met: np.ndarray = field(default_factory=lambda: np.zeros(_PLACES, bool))
    _judged: np.ndarray = field(default_factory=lambda: np.zeros(_PLACES, bool))
    _firsts: list[float] = field(default_factory=list)

    def add(self, frame: Frame) -> None:
        """Count rows of both arms, which come in the order of time."""
        status = {number: origin.status for number, origin in frame.origins.items()}
        frame = frame.take(~_among(frame, status, _HUNG_UP))
        if not len(frame):
            return
        part = {number: origin.route for number, origin in frame.origins.items()}
        arms = _among(frame, part, self.parts[B]).astype(np.int64)
        answered = _among(frame, status, OK)
        places = _places(frame["key"])
        new = _new(self._met, places)
        self.callers.add(arms[new], np.ones(new.sum()))
        self.failed.add(arms, ~answered)
        self._time(arms[answered], frame["total_us"][answered])
        self._judge(frame, arms, answered, places)

    def _judge(
        self, frame: Frame, arms: np.ndarray, answered: np.ndarray, places: np.ndarray
    ) -> None:
        if self.labelled:
            hits, unmatched = right(frame, self.classes)
            self.unmatched += unmatched
            known = answered & ~np.isnan(hits)
        else:
            hits, known = answered.astype(float), np.ones(len(frame), bool)
        known[known] = _new(self._judged, places[known])
        arms, hits, times = arms[known], hits[known], frame["time"][known]
        if not len(arms):
            return
        starts = times // self.width * self.width
        for start in np.unique(starts):
            ours = starts == start
            self._count(int(start), arms[ours], hits[ours], times[ours])

    def _count(self, start: int, arms: np.ndarray, hits: np.ndarray, times: np.ndarray) -> None:
        """Count callers of one window."""
        if start not in self.windows and self.windows:
            self.settle()
        if self.crossed is None:
            path = self.effect.path(arms, hits) >= self.threshold
            if path.any():
                at = int(path.argmax())
                self.crossed = Crossing(int(times[at]), self.outcome.n + at + 1)
        for pair in (self.outcome, self.windows.setdefault(start, Pair())):
            pair.add(arms, hits)
        self.effect.add(arms, hits)

    def settle(self) -> None:
        """Keep the effect as it is now, for the window that ends; of many, every other is kept."""
        if not self.windows:
            return
        self.steps.append(Step(max(self.windows), self.outcome.n, self.effect.interval()))
        if len(self.steps) > _MOST_STEPS:
            self.steps = self.steps[1::2]

    def _time(self, arms: np.ndarray, taken: np.ndarray) -> None:
        """Count slow answers; how slow is slow is settled by A's first ones, which don't count."""
        known = np.isfinite(taken)
        arms, taken = arms[known], taken[known]
        if self.limit_us is None:
            theirs = np.flatnonzero(arms == A)[: _FIRST - len(self._firsts)]
            self._firsts += taken[theirs].tolist()
            if len(self._firsts) < _FIRST:
                return
            self.limit_us = float(np.quantile(self._firsts, _SLOW))
            arms, taken = arms[theirs[-1] + 1 :], taken[theirs[-1] + 1 :]
        self.slow.add(arms, taken > self.limit_us)


def right(frame: Frame, classes: Mapping[str, int]) -> tuple[np.ndarray, int]:
    """Say which rows are right by their labels, and how many labels name no class.

    Args:
        frame: with the columns `label` and `top`.
        classes: numbers of classes by their names.

    Returns:
        1 where right, 0 where wrong, NaN where that isn't known, shape (rows,).
    """
    labels, found = frame["label"], np.full(len(frame), math.nan)
    given = [(at, label) for at, label in enumerate(labels) if label is not None]
    if not given:
        return found, 0
    numbers = [_number(label, classes) for _, label in given]
    places = np.array([at for at, _ in given])
    told = np.array(numbers, float)
    tops = frame["top"][places]
    found[places] = np.where(np.isnan(told) | np.isnan(tops), math.nan, told == tops)
    return found, int(np.isnan(told).sum())


def _number(label: int | float | str, classes: Mapping[str, int]) -> float:
    if not isinstance(label, str):
        return float(label)
    if label in classes:
        return classes[label]
    try:
        return float(label)
    except ValueError:
        return math.nan


def _among(frame: Frame, values: Mapping[int, str], wanted: str) -> np.ndarray:
    return np.isin(frame["origin"], [number for number, value in values.items() if value == wanted])


def _places(keys: np.ndarray) -> np.ndarray:
    """Return where each caller is remembered; −1 for one without a key."""
    hashed = (zlib.crc32(key.encode()) % _PLACES if key else -1 for key in keys)
    return np.fromiter(hashed, np.int64, len(keys))


def _new(met: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return which rows are a caller's first, and remember them; all without a key are."""
    new = places < 0
    keyed = np.flatnonzero(~new)
    _, firsts = np.unique(places[keyed], return_index=True)
    firsts = keyed[firsts]
    firsts = firsts[~met[places[firsts]]]
    met[places[firsts]] = True
    new[firsts] = True
    return new
