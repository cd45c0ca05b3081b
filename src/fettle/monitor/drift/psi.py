"""Population stability index: Σ (q − p) ln(q / p) over cells.

Cells are bins that hold equal shares of the reference, or classes; p are the shares of the
reference, q those of the window, half an example added to each cell. It is the sum of both
Kullback–Leibler divergences. The rule of thumb, that 0.1 is a little and 0.25 much, forgets that a
clean window of n values against a reference of m has about (bins − 1)(1/n + 1/m): so it is
calibrated as the others are, and the rule of thumb is not used.

Source: S. Lewis, An Introduction to Credit Scoring (1994); B. Yurdakul, J. Naranjo, Journal of Risk
Model Validation 14 (2020) 89–100 (its distribution).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from fettle.core.knobs import Range
from fettle.monitor.drift._binned import Binned, shares
from fettle.monitor.drift._cells import cells_of
from fettle.monitor.drift._detector import Detector, Fitted, Kind


@dataclass(frozen=True, kw_only=True)
class PSI(Detector):
    """Population stability index, calibrated."""

    kinds: ClassVar[tuple[Kind, ...]] = ("number", "class")

    bins: Annotated[int, Range(2, 100), "bins of numbers"] = 10

    def fit(self, reference: np.ndarray) -> Fitted:
        """Return the detector, calibrated on `reference`."""
        return Binned(cells_of(self.checked(reference), self.bins), psi, self.resamples)


def psi(reference: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the index between counts, shape (…, cells), and the reference's."""
    p, q = shares(reference), shares(counts)
    return np.asarray(((q - p) * np.log(q / p)).sum(-1))
