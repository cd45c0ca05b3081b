"""Axes: from values to pixels, with ticks at round numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_STEPS = (1.0, 2.0, 5.0, 10.0)


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
        part = self._part(inside)
        return round(self.start + part * (self.stop - self.start), 1)

    def _part(self, value: float) -> float:
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def padded(values: Sequence[float], by: float) -> tuple[float, float]:
    """Return the range of `values`, wider by the share `by` on both sides; never empty."""
    low, high = min(values), max(values)
    pad = by * (high - low) or 0.01 * abs(high) or 0.01
    return low - pad, high + pad


def padded_log(values: Sequence[float], by: float) -> tuple[float, float]:
    """Return the range of positive `values`, wider by the factor 1 + `by` on both sides."""
    return min(values) / (1 + by), max(values) * (1 + by)


def ticks(low: float, high: float, most: int) -> list[float]:
    """Return at most `most` round numbers within [low, high], a step of 1, 2 or 5 apart."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in _STEPS if factor * power >= rough)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)][:most]


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """Return round numbers within [low, high] for a logarithmic axis: 1, 2, 5, 10, 20.

    A range of less than two of these gets evenly stepped numbers; a long one only the tens.
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    tens = [10.0**power for power in powers]
    fine = [factor * ten for ten in tens for factor in (1, 2, 5)]
    for candidates in (fine, tens):
        inside = [round(value, 12) for value in candidates if low <= value <= high]
        if 3 <= len(inside) <= most:
            return inside
    return ticks(low, high, most) if len(inside) < 3 else inside[:: -(-len(inside) // most)]
