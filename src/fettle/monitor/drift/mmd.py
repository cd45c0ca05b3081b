"""Maximum mean discrepancy: whether two clouds of vectors have the same mean under every kernel.

The kernel is Gaussian, as wide as the median distance within the reference. It sees what no single
number shows: embeddings and scores that move together. The p-value is of a permutation test: the
window and the reference are thrown together and dealt again, which is exact whatever the vectors
are. Of longer samples some hundred rows are taken, for its cost grows with their square.

Source: A. Gretton, K. Borgwardt, M. Rasch, B. Schölkopf, A. Smola, Journal of Machine Learning
Research 13 (2012) 723–773.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from fettle.core.errors import DataError
from fettle.core.knobs import Range
from fettle.monitor.drift._detector import Detector, DriftScore, Fitted, Kind, known, scored

_SEED = 7


@dataclass(frozen=True, kw_only=True)
class MMD(Detector):
    """Maximum mean discrepancy with a permutation test."""

    kinds: ClassVar[tuple[Kind, ...]] = ("vector",)

    resamples: Annotated[
        int, Range(99, 99_999), "times that rows are dealt again; p is at least their inverse"
    ] = 499
    bandwidth: Annotated[
        float, Range(0, 1e12), "width of the kernel; 0 for the median distance in the reference"
    ] = 0.0
    most: Annotated[int, Range(10, 5000), "rows of the window, and of the reference"] = 400

    def fit(self, reference: np.ndarray) -> Fitted:
        """Return the detector, knowing `reference`, shape (m, d)."""
        rows = thinned(self.checked(reference, 3), self.most)
        return _MMD(rows, self.bandwidth or _median(rows), self.most, self.resamples)


class _MMD(Fitted):
    def __init__(self, rows: np.ndarray, width: float, most: int, resamples: int) -> None:
        self._rows, self._width, self._most, self._resamples = rows, width, most, resamples

    def score(self, window: np.ndarray, alpha: float = 0.05) -> DriftScore:
        found = known(np.asarray(window, np.float64), 2)
        if found.ndim != 2 or found.shape[1] != self._rows.shape[1]:
            raise DataError(
                f"vectors of {self._rows.shape[1]} numbers were expected, got the shape"
                f" {found.shape}"
            )
        rows = thinned(found, self._most)
        pooled = np.concatenate([self._rows, rows])
        kernel = gaussian(pooled, pooled, self._width)
        np.fill_diagonal(kernel, 0)
        dealt = np.sort(discrepancies(kernel, self._deals(len(pooled))))
        mine = np.zeros((1, len(pooled)))
        mine[0, : len(self._rows)] = 1
        found_discrepancy = float(discrepancies(kernel, mine)[0])
        return scored(found_discrepancy, dealt, alpha, len(rows))

    def _deals(self, n: int) -> np.ndarray:
        """Return which rows the reference gets in each deal, shape (resamples, n), of 0 and 1."""
        random = np.random.default_rng(_SEED)
        order = random.random((self._resamples, n), np.float32)
        last = np.partition(order, len(self._rows) - 1, axis=1)[:, len(self._rows) - 1]
        return (order <= last[:, None]).astype(np.float64)


def discrepancies(kernel: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Return the unbiased squared discrepancy of each split.

    Args:
        kernel: of all rows, its diagonal 0, shape (n, n).
        first: 1 for the rows of the first sample, shape (splits, n).
    """
    m = first.sum(1)
    n = first.shape[1] - m
    within = ((first @ kernel) * first).sum(1)
    reached = first @ kernel.sum(1)
    across, other = reached - within, kernel.sum() - 2 * reached + within
    return np.asarray(within / (m * (m - 1)) + other / (n * (n - 1)) - 2 * across / (m * n))


def gaussian(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """Return exp(−|a − b|² / (2 width²)) of all pairs, shape (len(a), len(b))."""
    return np.asarray(np.exp(-_squares(a, b) / (2 * width**2)))


def thinned(rows: np.ndarray, most: int) -> np.ndarray:
    """Return at most so many rows, by a draw that is always the same."""
    if len(rows) <= most:
        return rows
    return rows[np.sort(np.random.default_rng(_SEED).choice(len(rows), most, replace=False))]


def _median(rows: np.ndarray) -> float:
    squares = _squares(rows, rows)[np.triu_indices(len(rows), 1)]
    return float(np.sqrt(np.median(squares))) or float(np.sqrt(squares.max())) or 1.0


def _squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    found = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    return np.asarray(np.maximum(found, 0))
