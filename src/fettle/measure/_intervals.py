"""Intervals that need no assumption about the distribution."""

from __future__ import annotations

import numpy as np


def median_interval(values: np.ndarray, confidence: float = 0.95) -> tuple[float, float, float]:
    """Return median, low and high of `values`, shape (n,): the sign test's interval.

    The bounds are order statistics x(k), x(n+1−k), with the largest k for which
    2·P(Bin(n, ½) < k) <= 1 − confidence. Below 6 values no such k exists at 95 %: the bounds are
    then the extremes, which hold the median with 1 − 2^(1−n) only.

    Source: W. J. Conover, Practical Nonparametric Statistics, 3rd ed., section 3.2.
    """
    from scipy import stats

    ordered = np.sort(np.asarray(values, dtype=np.float64))
    k = max(int(stats.binom.ppf((1 - confidence) / 2, len(ordered), 0.5)), 1)
    return float(np.median(ordered)), float(ordered[k - 1]), float(ordered[-k])
