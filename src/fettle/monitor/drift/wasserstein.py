"""Wasserstein distance: how far values have to be carried, in their own unit.

Use it where the size of a shift matters, not only that there is one. Clean windows are drawn into
the gaps between the reference's numbers; beyond its ends they lie as far as the last ten numbers of
a falling tail foretell, so a reference with very heavy tails is calibrated a little roughly.

Source: L. N. Vaserstein, Problems of Information Transmission 5 (1969) 64–72; A. Ramdas,
N. García Trillos, M. Cuturi, Entropy 19 (2017) 47 (as a test of two samples).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fettle.monitor.drift._cells import Gaps, gaps_of
from fettle.monitor.drift._detector import Calibrated, Detector, Fitted


@dataclass(frozen=True, kw_only=True)
class Wasserstein(Detector):
    """The distance that values are carried on average, calibrated."""

    def fit(self, reference: np.ndarray) -> Fitted:
        """Return the detector, calibrated on `reference`."""
        numbers = self.checked(reference)
        return _Wasserstein(numbers, gaps_of(numbers), self.resamples)


class _Wasserstein(Calibrated):
    def __init__(self, reference: np.ndarray, gaps: Gaps, resamples: int) -> None:
        super().__init__(gaps.masses, self._carried, resamples)
        self._reference, self._gaps = reference, gaps

    def counts(self, window: np.ndarray) -> np.ndarray:
        return self._gaps.counts(window)

    def statistic(self, window: np.ndarray) -> float:
        """Return the distance of the values themselves, not of their cells."""
        from scipy import stats

        return float(stats.wasserstein_distance(self._reference, window))

    def _carried(self, counts: np.ndarray) -> np.ndarray:
        below = np.cumsum(counts, axis=-1) / counts.sum(-1, keepdims=True)
        apart = np.abs(below - self._gaps.below)[..., :-1]
        return np.asarray(apart @ np.diff(self._gaps.places))
