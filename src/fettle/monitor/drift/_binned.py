"""Detectors that compare shares of cells: what they have in common."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from fettle.monitor.drift._cells import Cells
from fettle.monitor.drift._detector import Calibrated

Between = Callable[[np.ndarray, np.ndarray], np.ndarray]
_HALF = 0.5


class Binned(Calibrated):
    """A distance between counts in cells.

    Args:
        cells: made of the reference.
        between: returns the distances of counts, shape (…, cells), from the reference's (cells,).
        resamples: windows to calibrate on.
    """

    def __init__(self, cells: Cells, between: Between, resamples: int) -> None:
        super().__init__(cells.masses, partial(between, cells.reference), resamples)
        self._cells = cells

    def counts(self, window: np.ndarray) -> np.ndarray:
        """Return how many values fall into each cell, shape (cells,)."""
        return self._cells.counts(window)


def shares(counts: np.ndarray) -> np.ndarray:
    """Return the cells' shares, half an example added to each: no cell is impossible."""
    raised = counts + _HALF
    return np.asarray(raised / raised.sum(-1, keepdims=True))
