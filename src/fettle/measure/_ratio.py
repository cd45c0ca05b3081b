"""Ratios of two latencies, the noise floor, and whether two artifacts differ at all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from fettle.core.errors import InputError
from fettle.measure._intervals import LEAST_GROUPS, geometric_interval, median_interval
from fettle.measure._samples import Samples

AGAIN = " (again)"


@dataclass(frozen=True)
class Ratio:
    """A ratio of two latencies with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def stray(self) -> float:
        """How far from 1 the interval reaches, as a factor above 1: 1.03 for [0.97, 1.02]."""
        return max(self.high, 1 / self.low if self.low > 0 else math.inf)

    def to_json(self) -> dict[str, float]:
        """Return the JSON form."""
        return asdict(self)


def ratio(a: Samples, b: Samples) -> Ratio:
    """Return time of `a` over time of `b`: above 1, `b` is that many times faster.

    Where sessions were rebuilt while timing, each build gives one ratio (the median over its
    rounds of the ratio of the block medians), and the value is their geometric mean with Student's
    interval: two builds of one model differ by luck of memory, and only builds tell how much.
    Otherwise the value is the median over rounds, with the distribution-free interval of a median,
    which knows nothing of that luck: hold it against `noise_in` by `differs`.

    Raises:
        InputError: the two were not timed in the same call.
    """
    if len(a.blocks) != len(b.blocks):
        raise InputError(
            f"`{a.label}` has {len(a.blocks)} rounds and `{b.label}` {len(b.blocks)}:"
            " a ratio needs both from one call of time_interleaved"
        )
    by_round = a.medians / b.medians
    builds = np.asarray(a.builds or b.builds or [0] * len(by_round))
    numbers = np.unique(builds)
    if len(numbers) < LEAST_GROUPS:
        return Ratio(*median_interval(by_round))
    by_build = np.array([np.median(by_round[builds == number]) for number in numbers])
    return Ratio(*geometric_interval(by_build))


def noise_in(samples: Mapping[str, Samples], label: str) -> Ratio:
    """Return the ratio of `label` to its twin, when both were timed in one call."""
    return ratio(samples[label], samples[f"{label}{AGAIN}"])


def differs(measured: Ratio, noise: Ratio | None = None) -> bool:
    """Say whether a ratio shows a difference: its interval leaves 1 out, and it is past the floor.

    The floor is how far the interval of the artifact against itself, timed in the same run,
    reaches from 1. Without `noise` the interval alone decides.
    """
    if measured.low <= 1 <= measured.high:
        return False
    size = max(measured.value, 1 / measured.value if measured.value > 0 else math.inf)
    return noise is None or size > noise.stray


def too_noisy(measured: Ratio, limit: float = 0.05) -> str | None:
    """Return a warning when the artifact against itself strays from 1 by more than `limit`."""
    stray = max(abs(measured.low - 1), abs(measured.high - 1))
    if stray <= limit:
        return None
    return (
        f"this machine is noisy: the same artifact against itself measured"
        f" {measured.value:.3f} [{measured.low:.3f}, {measured.high:.3f}], where within"
        f" ±{limit:.0%} of 1 was expected; ratios closer to 1 than {stray:.0%} mean nothing here:"
        " stop other programs, or give the timing more seconds"
    )
