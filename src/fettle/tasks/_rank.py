"""Spearman's rank correlation, and what each example adds to it."""

from __future__ import annotations

import numpy as np

_CHUNK = 2_000_000  # numbers held at once


def pseudo_values(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return ρ + (n − 1) (ρ̄₍₋₎ − ρ₍₋ᵢ₎) for each example, shape (n,); their mean is ρ.

    ρ is Pearson's correlation of mid-ranks, so ties are allowed for; where all of `x` or all of `y`
    are alike, it is 0. Taking example i out moves the mid-rank of every other one by 1 where that
    is larger, by ½ where it is equal: so all n leave-one-out correlations take O(n²) steps.

    Args:
        x: one number an example, shape (n,).
        y: another, shape (n,).
    """
    n = len(x)
    whole = float(_correlation(_ranks(x)[None], _ranks(y)[None])[0])
    if n < 3:
        return np.full(n, whole)
    size = max(_CHUNK // n, 1)
    parts = [_without(x, y, np.arange(start, min(start + size, n))) for start in range(0, n, size)]
    left_out = np.concatenate(parts)
    return np.asarray(whole + (n - 1) * (left_out.mean() - left_out))


def _without(x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return ρ without each of `rows`, shape (len(rows),)."""
    ranks = [_ranks_without(values, rows) for values in (x, y)]
    kept = np.ones((len(rows), len(x)), bool)
    kept[np.arange(len(rows)), rows] = False
    return _correlation(*(r[kept].reshape(len(rows), -1) for r in ranks))


def _ranks_without(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the mid-ranks of `values` without each of `rows`, shape (len(rows), n)."""
    out = values[rows][:, None]
    shift = (out < values) + 0.5 * (out == values)
    return np.asarray(_ranks(values)[None] - shift)


def _ranks(values: np.ndarray) -> np.ndarray:
    from scipy.stats import rankdata

    return np.asarray(rankdata(values), dtype=np.float64)


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return Pearson's correlation of each row of `a` with that of `b`, shape (rows,)."""
    a, b = (rows - rows.mean(axis=1, keepdims=True) for rows in (a, b))
    spread = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    found = np.divide((a * b).sum(axis=1), spread, out=np.zeros(len(a)), where=spread > 0)
    return np.asarray(found)
