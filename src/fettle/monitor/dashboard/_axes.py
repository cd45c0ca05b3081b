"""Axes: from values and times to pixels, with ticks at round numbers and round times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fettle.monitor.dashboard._format import moment

_STEPS = (1.0, 2.0, 5.0, 10.0)
_LENGTHS = (1, 5, 10, 30, 60, 300, 900, 1800, 3600, 7200, 21_600, 43_200, 86_400, 604_800)


@dataclass(frozen=True)
class Scale:
    """A range of values laid over a range of pixels, evenly or by logarithm."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the pixel of `value`, to a tenth; values outside go to the nearer edge."""
        inside = min(max(value, self.low), self.high)
        if self.log:
            part = math.log(inside / self.low) / math.log(self.high / self.low)
        else:
            part = (inside - self.low) / (self.high - self.low)
        return round(self.start + part * (self.stop - self.start), 1)


def ticks(low: float, high: float, most: int) -> list[float]:
    """Return at most `most` round numbers within [low, high], a step of 1, 2 or 5 apart."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in _STEPS if factor * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(at * step, 12) for at in range(first, last + 1)][:most]


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """Return at most `most` of 1, 2, 5, 10, 20 … within [low, high]; even steps where few are."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    fine = [round(factor * 10.0**power, 12) for power in powers for factor in (1, 2, 5)]
    inside = [value for value in fine if low <= value <= high]
    if len(inside) < 3:
        return ticks(low, high, most)
    return inside[:: -(-len(inside) // most)]


def time_ticks(first: float, last: float, most: int) -> list[tuple[float, str]]:
    """Return at most `most` round times within [first, last], in seconds, with their names."""
    span = last - first
    step = next((s for s in _LENGTHS if span / s <= most), None) or span / most
    day = span > 36 * 3600
    form = "%m-%d" if step >= 86_400 else "%d. %H:%M" if day else "%H:%M"
    form = form if step >= 60 or day else "%H:%M:%S"
    start = math.ceil(first / step) * step
    found = [start + at * step for at in range(int((last - start) / step) + 1)]
    return [(at, moment(at, form)) for at in found][:most]


def reach(values: Sequence[float], zero: bool = True, pad: float = 0.08) -> tuple[float, float]:
    """Return the range that an axis shows for `values`; with `zero` it begins or ends there."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if low == high == 0:
        return 0.0, 1.0
    room = pad * (high - low) or 0.1 * abs(high) or 1.0
    return (low if zero and low == 0 else low - room), (high if zero and high == 0 else high + room)
