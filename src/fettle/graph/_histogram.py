"""What is kept of a tensor's values while batches stream by: extremes and a bounded histogram.

The histogram is symmetric about zero and spans a power of two. When a value falls outside, the span
doubles and neighbouring bins merge in pairs: no count is ever spread or lost, and two histograms
can be added exactly.
"""

from __future__ import annotations

import math

import numpy as np

_SMALLEST_SPAN = 2.0**-100  # below, float32 can't hold the reciprocal of a bin's width
BINS = 4096  # on each side of zero, of which at least half are in use


class Histogram:
    """Counts of values in `2·BINS` equal bins from −span to span, and the exact extremes."""

    def __init__(self) -> None:
        self.low, self.high = math.inf, -math.inf
        self.span = 0.0
        self.counts = np.zeros(2 * BINS, np.int64)

    @property
    def top(self) -> float:
        """The largest magnitude."""
        return max(-self.low, self.high, 0.0)

    @property
    def width(self) -> float:
        """Width of a bin."""
        return self.span / BINS

    @property
    def counted(self) -> bool:
        """Whether there are counts to choose a range by."""
        return self.span >= _SMALLEST_SPAN and bool(self.counts.any())

    def extend(self, low: float, high: float) -> None:
        """Take note of the extremes of a batch; they must be finite."""
        self.low, self.high = min(self.low, float(low)), max(self.high, float(high))
        if self.top > self.span:
            self._widen(2.0 ** math.ceil(math.log2(self.top)))

    def add(self, sample: np.ndarray) -> None:
        """Count values (any shape), whose extremes were given to `extend` before."""
        if self.span < _SMALLEST_SPAN:
            self.counts[BINS] += sample.size
            return
        bins = np.floor(sample.reshape(-1) * (BINS / self.span)).astype(np.int32) + BINS
        np.clip(bins, 0, 2 * BINS - 1, out=bins)
        self.counts += np.bincount(bins, minlength=2 * BINS)

    def merge(self, other: Histogram) -> None:
        """Add the counts and extremes of another histogram; the other may be widened."""
        self.extend(other.low, other.high)
        other._widen(self.span)
        self.counts += other.counts

    def centres(self) -> np.ndarray:
        """Return the middle of each bin, shape (2·BINS,)."""
        return (np.arange(-BINS, BINS) + 0.5) * self.width

    def magnitudes(self) -> np.ndarray:
        """Return the counts of |x|, shape (BINS,)."""
        return self.counts[BINS:] + self.counts[:BINS][::-1]

    def _widen(self, span: float) -> None:
        while 0 < self.span < span:
            merged = self.counts.reshape(BINS, 2).sum(axis=1)
            self.counts = np.zeros(2 * BINS, np.int64)
            self.counts[BINS // 2 : BINS // 2 + BINS] = merged
            self.span *= 2
        self.span = span
