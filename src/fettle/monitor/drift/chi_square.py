"""Chi-square of homogeneity: whether two samples fall into cells at the same rates.

Cells are classes, or bins that hold equal shares of the reference. The statistic is Pearson's over
the table of 2 × cells. Its own distribution holds from some five examples a cell; here clean
windows tell it, so that rare classes do no harm.

Source: K. Pearson, Biometrika 8 (1911) 250–254.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from fettle.core.knobs import Range
from fettle.monitor.drift._binned import Binned
from fettle.monitor.drift._cells import cells_of
from fettle.monitor.drift._detector import Detector, Fitted, Kind


@dataclass(frozen=True, kw_only=True)
class ChiSquare(Detector):
    """Pearson's chi-square of two samples, calibrated."""

    kinds: ClassVar[tuple[Kind, ...]] = ("class", "number")

    bins: Annotated[int, Range(2, 100), "bins of numbers"] = 10

    def fit(self, reference: np.ndarray) -> Fitted:
        """Return the detector, calibrated on `reference`."""
        return Binned(cells_of(self.checked(reference), self.bins), chi_square, self.resamples)


def chi_square(reference: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the statistic between counts, shape (…, cells), and the reference's."""
    m, n = reference.sum(), counts.sum(-1, keepdims=True)
    both = reference + counts
    apart = (np.sqrt(m / n) * counts - np.sqrt(n / m) * reference) ** 2
    return np.asarray(np.divide(apart, both, out=np.zeros_like(apart), where=both > 0).sum(-1))
