"""How long training takes here, and how much of it the clock still allows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fettle.core.plugin import Plugin
    from fettle.search._trial import Trial
    from fettle.search.clock import Clock

KEPT = 0.25  # of the time left, for quantizing, timing and scoring what was trained


class Pace:
    """Learns from every training how many seconds an epoch takes; the longest counts."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.seconds = 0.0

    def observe(self, trial: Trial, step: Plugin) -> None:
        """Learn from the last training stage, whose `step` says how many epochs it had."""
        took = [stage.seconds for stage in trial.stages if stage.name == str(step)]
        if took:
            self.seconds = max(self.seconds, took[-1] / max(getattr(step, "epochs", 1), 1))

    def epochs(self, wanted: int, before: int) -> int:
        """Return how many epochs the next rung may have: at most `wanted`.

        0 where there is time for fewer than the rung `before` had, which would add nothing.
        """
        if not self.seconds or math.isinf(self.clock.left):
            return wanted
        possible = int((1 - KEPT) * self.clock.left / self.seconds)
        return 0 if possible < max(before, 1) else min(wanted, possible)

    def until(self, rungs: int) -> float:
        """Return the seconds that are to be left when this rung ends, of `rungs` that are to come.

        Each rung has the same share of the time.
        """
        left = self.clock.left
        return 0.0 if math.isinf(left) else left * (1 - 1 / rungs)
