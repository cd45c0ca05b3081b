"""Jensen–Shannon distance: the root of half the divergences of both from their mean.

Cells are bins that hold equal shares of the reference, or classes. To base 2 it lies between 0, for
alike, and 1, for nothing in common, so that it compares features of any unit.

Source: J. Lin, IEEE Transactions on Information Theory 37 (1991) 145–151; D. M. Endres,
J. E. Schindelin, the same 49 (2003) 1858–1860 (its root is a metric).
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
class JensenShannon(Detector):
    """Jensen–Shannon distance to base 2, calibrated."""

    kinds: ClassVar[tuple[Kind, ...]] = ("number", "class")

    bins: Annotated[int, Range(2, 100), "bins of numbers"] = 10

    def fit(self, reference: np.ndarray) -> Fitted:
        """Return the detector, calibrated on `reference`."""
        return Binned(cells_of(self.checked(reference), self.bins), jensen_shannon, self.resamples)


def jensen_shannon(reference: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the distance between counts, shape (…, cells), and the reference's."""
    p = reference / reference.sum()
    q = counts / counts.sum(-1, keepdims=True)
    mean = (p + q) / 2
    divergence = (_apart(p, mean).sum(-1) + _apart(q, mean).sum(-1)) / 2
    return np.asarray(np.sqrt(np.maximum(divergence, 0)))


def _apart(p: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return p log2(p / mean), 0 where p is 0."""
    ratio = np.divide(p, mean, out=np.ones_like(mean), where=(p + 0 * mean) > 0)
    return np.asarray(p * np.log2(ratio))
