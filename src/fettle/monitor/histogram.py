"""Counts of durations by logarithmic buckets: quantiles of any number of them, in a few kilobytes.

Up to 255 µs each value has a bucket of its own; above, a bucket is at most 1/128 of its values
wide, so that a quantile is off by 0.4 % at most. Histograms of parts add up to that of the whole.

Method: HdrHistogram, https://hdrhistogram.github.io/HdrHistogram/
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import stats

_BITS = 7
_LONGEST = 2**41 - 1  # µs: 25 days
_BUCKETS = (41 - _BITS + 1) << _BITS
_CONFIDENCE = 0.95
ENOUGH_FOR_P99 = 1000


@dataclass(frozen=True)
class Quantile:
    """A quantile in milliseconds, its 95 % interval, and of how many durations."""

    value: float
    low: float
    high: float
    n: int

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return dict(vars(self))


@dataclass(eq=False)
class Histogram:
    """Counts of durations in microseconds.

    Attributes:
        n: how many were counted.
        total: their sum in microseconds.
    """

    counts: np.ndarray = field(default_factory=lambda: np.zeros(_BUCKETS, np.uint32))
    n: int = 0
    total: float = 0.0

    def add(self, microseconds: np.ndarray) -> None:
        """Count durations; those that are no numbers are passed over."""
        known = microseconds[np.isfinite(microseconds)]
        whole = np.clip(known, 0, _LONGEST).astype(np.int64)
        found = np.bincount(bucket_of(whole))
        self.counts[: len(found)] += found.astype(np.uint32)
        self.n += len(known)
        self.total += float(known.sum())

    def __iadd__(self, other: Histogram) -> Histogram:
        self.counts += other.counts
        self.n += other.n
        self.total += other.total
        return self

    @property
    def mean(self) -> float | None:
        """The mean in milliseconds; None of nothing."""
        return self.total / self.n / 1000 if self.n else None

    def quantile(self, q: float) -> Quantile | None:
        """Return a quantile, with the interval that order statistics give whatever the law.

        The k-th smallest of n values lies below the quantile with the probability that a binomial
        of n and q exceeds k. None of nothing, and of too few values for what lies that far out.

        Reference: W. J. Conover, Practical Nonparametric Statistics, 3.2.
        """
        if not self.n or (q >= 0.99 and self.n < ENOUGH_FOR_P99):
            return None
        tail = (1 - _CONFIDENCE) / 2
        low, high = stats.binom.ppf([tail, 1 - tail], self.n, q)
        ranks = np.clip([np.ceil(q * self.n), low, high + 1], 1, self.n)
        value, under, over = self._at(ranks)
        return Quantile(value, under, over, self.n)

    def _at(self, ranks: np.ndarray) -> list[float]:
        """Return the values of these ranks, from 1 on, in milliseconds."""
        upto = np.cumsum(self.counts, dtype=np.int64)
        return [float(x) for x in middle_of(np.searchsorted(upto, ranks)) / 1000]


def bucket_of(values: np.ndarray) -> np.ndarray:
    """Return the bucket of each whole number from 0 on."""
    shift = np.maximum(np.frexp(values.astype(np.float64))[1] - 1 - _BITS, 0)
    return np.asarray((shift << _BITS) + (values >> shift))


def middle_of(buckets: np.ndarray) -> np.ndarray:
    """Return the middle of each bucket."""
    shift = np.maximum((buckets >> _BITS) - 1, 0)
    least = (buckets - (shift << _BITS)) << shift
    return np.asarray(least + ((1 << shift) - 1) / 2)
