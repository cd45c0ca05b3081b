"""Kolmogorov–Smirnov: the largest gap between two distribution functions.

It needs no bins, knows no unit, and is the default for numbers: few mild assumptions, good at moved
centres, weak in the tails. Where all values differ its clean windows are distributed exactly as the
two-sample statistic; repeated values are cells of their own.

Source: N. V. Smirnov, Annals of Mathematical Statistics 19 (1948) 279–281.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from fettle.monitor.drift._cells import Gaps, gaps_of
from fettle.monitor.drift._detector import (
    Calibrated,
    Detector,
    Fitted,
    clean_counts,
    pieces,
)


@dataclass(frozen=True, kw_only=True)
class KolmogorovSmirnov(Detector):
    """The largest gap between two distribution functions, calibrated."""

    def fit(self, reference: np.ndarray) -> Fitted:
        """Return the detector, calibrated on `reference`."""
        return _KolmogorovSmirnov(gaps_of(self.checked(reference)), self.resamples)


class _KolmogorovSmirnov(Calibrated):
    def __init__(self, gaps: Gaps, resamples: int) -> None:
        super().__init__(gaps.masses, self._gap, resamples)
        self._gaps = gaps

    def counts(self, window: np.ndarray) -> np.ndarray:
        return self._gaps.counts(window)

    def null(self, n: int) -> np.ndarray:
        """Return the gaps of clean windows: of all references with the same repeats they agree."""
        return _null(self._masses.tobytes(), n, self._resamples)

    def _gap(self, counts: np.ndarray) -> np.ndarray:
        return _largest(counts, self._gaps.below)


@lru_cache(maxsize=64)
def _null(masses: bytes, n: int, resamples: int) -> np.ndarray:
    repeats = np.frombuffer(masses, np.float64).copy()
    repeats[1::2] += 1
    repeats[0::2] = 0
    below = np.cumsum(repeats) / repeats.sum()
    drawn = clean_counts(masses, n, resamples)
    return np.sort(np.concatenate([_largest(each, below) for each in pieces(drawn)]))


def _largest(counts: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Return the gap: within a gap of the reference only the window's function moves."""
    reached = np.cumsum(counts, axis=-1) / counts.sum(-1, keepdims=True)
    return np.asarray(np.abs(reached - below).max(-1))
