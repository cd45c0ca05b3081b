"""Means and ratios of costs that follow each other, with intervals that hold though they are alike.

Neighbours share the machine's mood: a stall slows many. Taken for independent, they would promise
too much. So they are summed in some dozens of runs, and the spread of these tells the error
(batch means; the delta method for ratios).

Reference: C. Alexopoulos, A. F. Seila, in J. Banks (ed.), Handbook of Simulation (1998), ch. 7.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

_MOST = 64
_FEWEST = 8  # runs, from which a spread can be told


class Estimate(NamedTuple):
    """A value with its 95 % interval; the bounds are None where too little is known."""

    value: float
    low: float | None
    high: float | None

    def to_json(self, scale: float = 1.0, less: float = 0.0) -> dict[str, Any]:
        """Return the JSON form, scaled, and then less a number that is known."""
        ends = (self.value, self.low, self.high)
        told = [None if end is None else scale * end - less for end in ends]
        return dict(zip(("value", "low", "high"), told, strict=True))


@dataclass
class BatchMeans:
    """Sums of columns over at most some dozens of runs of rows, shape (runs, 1 + columns).

    The first column counts rows.
    """

    columns: int
    _size: int = 1
    _sums: list[np.ndarray] = field(default_factory=list)

    def add(self, rows: np.ndarray) -> None:
        """Add rows, shape (n, columns), in their order."""
        while len(rows) / self._size > _MOST:
            self._size *= 2
        for start in range(0, len(rows), self._size):
            piece = rows[start : start + self._size]
            self._sums.append(np.concatenate([[len(piece)], piece.sum(0)]))
        while len(self._sums) > _MOST:
            self._size *= 2
            self._sums = [np.sum(self._sums[at : at + 2], 0) for at in range(0, len(self._sums), 2)]

    @property
    def n(self) -> int:
        """How many rows were added."""
        return int(sum(found[0] for found in self._sums))

    def ratio(self, over: Sequence[float], under: Sequence[float]) -> Estimate:
        """Return one weighted sum of columns, the count first, over another.

        Raises:
            ZeroDivisionError: there is nothing to divide by.
        """
        sums = np.array(self._sums).reshape(-1, 1 + self.columns)
        above, below = sums @ np.array(over), sums @ np.array(under)
        value = float(above.sum()) / float(below.sum())
        runs = len(sums)
        if runs < _FEWEST:
            return Estimate(value, None, None)
        rest = above - value * below
        error = math.sqrt(runs / (runs - 1) * float((rest**2).sum())) / abs(float(below.sum()))
        half = float(stats.t.ppf(0.975, runs - 1)) * error
        return Estimate(value, value - half, value + half)
