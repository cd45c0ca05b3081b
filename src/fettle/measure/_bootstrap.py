"""Bounds on the mean of differences that are not just −1, 0 and 1.

The studentised bootstrap, widened to Student's t where that is wider, and to what an unseen
example could still do where the differences don't vary at all. At its nominal level it passes a
little too often when the differences are skewed (6.6 % for 5 % at n = 100, exponential); taken at
0.8 of its level it stayed within 5 % from n = 100 in simulation, up to a skewness of 2.

Sources: B. Efron, R. J. Tibshirani, An Introduction to the Bootstrap (1993), chapter 12;
P. Hall, Annals of Statistics 16 (1988) 927–953.
"""

from __future__ import annotations

import numpy as np

_RESAMPLES = 4000
_CHUNK = 2_000_000  # draws held at once: 16 MB
_CAUTION = 0.8  # share of the level that is used, see above
_LEAST_SPREAD = 0.01  # of the sample's; a resample without spread says nothing


def mean_bounds(
    differences: np.ndarray, span: float, confidence: float, seed: int
) -> tuple[float, float]:
    """Return one-sided lower and upper bounds, each at `confidence`, of the mean, n >= 2.

    `span` is how far a single difference can lie from the mean: it matters only when all
    differences are equal, where the bound is the one that a fresh, different example allows:
    span · (1 − α^(1/n)).
    """
    from scipy import stats

    n, mean = len(differences), float(differences.mean())
    error = float(differences.std(ddof=1)) / np.sqrt(n)
    alpha = 1 - confidence
    if error <= 1e-12 * max(span, abs(mean)):
        unseen = span * (1 - alpha ** (1 / n))
        return mean - unseen, mean + unseen
    t, tail = _studentised(differences, seed), _CAUTION * alpha
    student = float(stats.t.isf(tail, n - 1))
    above = max(-float(np.quantile(t, tail, method="lower")), student)
    below = max(float(np.quantile(t, 1 - tail, method="higher")), student)
    return mean - below * error, mean + above * error


def _studentised(values: np.ndarray, seed: int) -> np.ndarray:
    """Return (mean* − mean) / error* for each resample, shape (resamples,)."""
    rng = np.random.default_rng(seed)
    n = len(values)
    centred = values - values.mean()
    rows = max(1, _CHUNK // n)
    parts = []
    for start in range(0, _RESAMPLES, rows):
        drawn = centred[rng.integers(n, size=(min(rows, _RESAMPLES - start), n))]
        spread = np.maximum(drawn.std(axis=1, ddof=1), _LEAST_SPREAD * values.std(ddof=1))
        parts.append(drawn.mean(axis=1) / (spread / np.sqrt(n)))
    return np.concatenate(parts)
