"""The clock of a search: how long it may take, and what stops when the time is up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from fettle.core.progress import Bar, Reporter

RESERVE = 0.1  # of the limit, kept for the last timing and the proof
LEAST_RESERVE, MOST_RESERVE = 5.0, 120.0  # seconds


class OutOfTime(Exception):
    """The time for looking is up; what was found so far is to be proven. No error of the user's."""


class Clock:
    """Seconds since the search began, against its limit.

    Part of the limit is kept back for the last timing and the proof, so that the whole ends in
    time. `limit` is in seconds; None never ends.
    """

    def __init__(
        self, limit: float | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.limit, self._now = limit, now
        self._started = now()

    @property
    def spent(self) -> float:
        """Seconds since the search began."""
        return self._now() - self._started

    @property
    def left(self) -> float:
        """Seconds left for looking; infinite without a limit, never below zero."""
        if self.limit is None:
            return float("inf")
        return max(self.limit - self._reserve() - self.spent, 0.0)

    def check(self, needed: float = 0.0) -> None:
        """Raise OutOfTime unless `needed` seconds are left."""
        if self.left <= 0 or self.left < needed:
            raise OutOfTime

    def _reserve(self) -> float:
        assert self.limit is not None
        return min(max(RESERVE * self.limit, LEAST_RESERVE), MOST_RESERVE, 0.5 * self.limit)


class Watched:
    """A reporter that stops whoever reports when the time is up.

    Long work (training, calibrating) reports each step, so that it can be stopped between two of
    them; what it keeps checkpoints of continues there when it is given more time.
    """

    def __init__(self, inner: Reporter, clock: Clock) -> None:
        self.inner, self.clock = inner, clock

    def say(self, message: str) -> None:
        """Show one line that stays."""
        self.inner.say(message)

    def bar(self, title: str, total: int, done: int = 0) -> AbstractContextManager[Bar]:
        """Open a bar whose steps look at the clock."""
        return self._bar(title, total, done)

    @contextmanager
    def _bar(self, title: str, total: int, done: int) -> Iterator[Bar]:
        with self.inner.bar(title, total, done) as bar:
            yield _WatchedBar(bar, self.clock)


class _WatchedBar:
    def __init__(self, inner: Bar, clock: Clock) -> None:
        self.inner, self.clock = inner, clock

    def step(self, note: str = "", amount: int = 1) -> None:
        """Move the bar, unless the time is up."""
        self.inner.step(note, amount)
        self.clock.check()
