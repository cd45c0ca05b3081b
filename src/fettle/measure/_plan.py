"""How long and how often to time, and how the time is shared out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fettle.core.errors import InputError
from fettle.measure._intervals import LEAST_GROUPS
from fettle.measure._samples import LEAST_FOR_P99
from fettle.measure._timing import share_out

LEAST_ROUNDS = 6  # the fewest from which a median has a 95 % interval at all
_CALM_SECONDS = 0.002
_FEW_BUILDS, _MOST_BUILDS = 4, 6


@dataclass(frozen=True)
class Plan:
    """How long and how often to time.

    `seconds` is the aim for all subjects together: a cheap subject stops early, once it has
    `samples` counted runs; a slow one gets fewer runs, then the whole gets fewer rounds, but
    never fewer than 6. `settle_seconds` opens each block uncounted while another's threads may
    still spin. `block_seconds` and `block_runs` are the least that a block should last. `builds`
    is how many sessions each subject that can be rebuilt is timed with; the time of building comes
    on top of `seconds`. `patience` is the share of `seconds` that may go, on top as well, into
    repeating rounds that something disturbed.
    """

    seconds: float = 10.0
    rounds: int = 24
    samples: int = LEAST_FOR_P99
    block_runs: int = 10
    block_seconds: float = 0.03
    settle_seconds: float = 0.05
    warmup_seconds: float = 0.2
    builds: int = _MOST_BUILDS
    patience: float = 0.5

    def __post_init__(self) -> None:
        if self.rounds < LEAST_ROUNDS or self.block_runs < 1 or self.samples < 1:
            raise InputError(
                f"a timing plan expects rounds >= {LEAST_ROUNDS}, block_runs >= 1 and"
                f" samples >= 1, got {self}"
            )
        times = (self.seconds, self.block_seconds, self.settle_seconds, self.warmup_seconds)
        if min(*times, self.patience) < 0:
            raise InputError(f"a timing plan expects no negative time, got {self}")
        if not LEAST_GROUPS <= self.builds <= LEAST_ROUNDS:
            raise InputError(
                f"a timing plan expects {LEAST_GROUPS} to {LEAST_ROUNDS} builds, got {self.builds}:"
                " fewer have no interval, more don't fit the fewest rounds"
            )

    @classmethod
    def for_budget(cls, seconds: float, build_seconds: float = 0.0) -> Plan:
        """Return a plan that aims at `seconds` in all, with 1,000 samples each where they fit.

        `build_seconds` is what it takes to build all subjects once: up to half as long as the
        timing goes into rebuilding them, and never fewer than 4 builds are made.
        """
        fitting = int(seconds / 2 / build_seconds) if build_seconds > 0 else _MOST_BUILDS
        builds = min(max(fitting, _FEW_BUILDS), _MOST_BUILDS)
        return cls(seconds=seconds, warmup_seconds=min(0.2, seconds / 20), builds=builds)

    def build_of(self, turn: int, rounds: int) -> int:
        """Return the number of the build that round `turn` of `rounds` is timed with."""
        return turn * self.builds // rounds


def settling_of(threads: Sequence[int], plan: Plan) -> float:
    """Return the seconds that open each block: only pools of several threads spin on."""
    pools = any(count != 1 for count in threads)
    return plan.settle_seconds if pools else min(plan.settle_seconds, _CALM_SECONDS)


def allot(costs: Sequence[float], plan: Plan, settling: float) -> tuple[int, list[int]]:
    """Return how many rounds to make, and how many counted runs each subject gets in a round."""
    idle = sum(max(settling, cost) for cost in costs)
    rounds = _rounds(costs, plan, idle)
    wanted = [_wanted(cost, rounds, plan.samples, plan) for cost in costs]
    granted = share_out(max(plan.seconds / rounds - idle, 0.0), wanted)
    runs = [max(1, round(time / cost)) for time, cost in zip(granted, costs, strict=True)]
    return rounds, runs


def _rounds(costs: Sequence[float], plan: Plan, idle: float) -> int:
    """Return the most rounds that leave time for all samples; else, for the shortest blocks.

    Even, so that every order meets its reverse as often.
    """
    for samples in (plan.samples, 1):
        for rounds in range(plan.rounds // 2 * 2, LEAST_ROUNDS, -2):
            counted = sum(_wanted(cost, rounds, samples, plan) for cost in costs)
            if rounds * (idle + counted) <= plan.seconds:
                return rounds
    return LEAST_ROUNDS


def _wanted(cost: float, rounds: int, samples: int, plan: Plan) -> float:
    """Return how many seconds a block should count."""
    return max(math.ceil(samples / rounds) * cost, plan.block_runs * cost, plan.block_seconds)
