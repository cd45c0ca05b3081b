"""The seam of a drift detector, and how each is calibrated: on its own reference.

A reference is a sample of a few hundred, not the truth. Held against windows drawn again from
itself, as a bootstrap does, a detector would take the reference's own luck for the truth and cry
wolf. So the truth is drawn too: cells of the reference get masses from their posterior, a Dirichlet
distribution, and windows of the right size are drawn from these masses. Each of `m` different
numbers has `m + 1` gaps around it; where the truth is continuous their masses are exactly
Dirichlet(1, …, 1), so that the ranks of such windows are distributed as those of a clean one.

The rate of false alarms that this keeps is that over references and windows. One unlucky reference
alarms more often than that, another less: the larger it is beside a window, the closer both come.

Source: S. S. Wilks, Mathematical Statistics (1962), section 8.7 (the masses between order
statistics); D. B. Rubin, Annals of Statistics 9 (1981) 130–134 (the Bayesian bootstrap).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, ClassVar, Literal

import numpy as np

from fettle.core.errors import DataError, InputError
from fettle.core.knobs import Range
from fettle.core.plugin import Plugin

Kind = Literal["number", "class", "vector"]
Distance = Callable[[np.ndarray], np.ndarray]
_SEED = 20_261_123
_AT_ONCE = 64


@dataclass(frozen=True)
class DriftScore:
    """How far a window lies from the reference.

    Attributes:
        statistic: the distance, in the detector's own unit.
        p: the chance of such a distance, or a larger one, where nothing has drifted.
        threshold: the distance that a clean window passes with a chance of `alpha`.
        n: values of the window that were looked at.
    """

    statistic: float
    p: float
    threshold: float
    n: int


class Fitted(ABC):
    """A detector that knows its reference."""

    @abstractmethod
    def score(self, window: np.ndarray, alpha: float = 0.05) -> DriftScore:
        """Hold a window against the reference.

        Args:
            window: values of the reference's kind, shape (n,) or (n, d).
            alpha: level of the threshold.

        Raises:
            DataError: the window is empty, or of another kind than the reference.
        """


@dataclass(frozen=True, kw_only=True)
class Detector(Plugin, ABC):
    """A distance between samples, calibrated on a reference.

    Floats are numbers; integers, booleans and text are classes; a table of floats is vectors.
    """

    kinds: ClassVar[tuple[Kind, ...]] = ("number",)

    resamples: Annotated[
        int, Range(99, 99_999), "clean windows drawn to calibrate on; p is at least their inverse"
    ] = 1999

    @abstractmethod
    def fit(self, reference: np.ndarray) -> Fitted:
        """Return the detector, calibrated on a reference of shape (m,) or (m, d).

        Raises:
            DataError: too few values, or of a kind that the detector doesn't take.
        """

    def checked(self, values: np.ndarray, least: int = 2) -> np.ndarray:
        """Return those values that are there: of numbers, the finite ones.

        Raises:
            DataError: too few are left, or they are of a kind that the detector doesn't take.
        """
        array = np.asarray(values)
        if (kind := kind_of(array)) not in self.kinds:
            raise DataError(
                f"`{self.name()}` expects {' or '.join(self.kinds)} values, got {kind} values of"
                f" {array.dtype} and shape {array.shape}"
            )
        return known(array, least)


def kind_of(values: np.ndarray) -> Kind:
    """Say what values are: by their type and shape.

    Raises:
        InputError: an array that is no sample.
    """
    if values.ndim == 2 and values.dtype.kind == "f":
        return "vector"
    if values.ndim != 1:
        raise InputError(f"a sample expects the shape (n,) or (n, d), got {values.shape}")
    return "number" if values.dtype.kind == "f" else "class"


def known(values: np.ndarray, least: int = 1) -> np.ndarray:
    """Return the rows of finite numbers; floats in 64 bits.

    Raises:
        DataError: fewer than `least` are left.
    """
    if values.dtype.kind == "f":
        values = values.astype(np.float64)
        finite = np.isfinite(values)
        values = values[finite if values.ndim == 1 else finite.all(1)]
    if len(values) < least:
        raise DataError(f"at least {least} finite values were expected, got {len(values)}")
    return values


class Calibrated(Fitted):
    """Counts in cells, held against windows that are drawn into the same cells.

    Args:
        masses: what the cells' Dirichlet distribution is made of, shape (cells,); 0 for a cell
            that nothing can fall into.
        distance: of counts, shape (…, cells), from the reference; shape (…,).
        resamples: windows to be drawn.
    """

    def __init__(self, masses: np.ndarray, distance: Distance, resamples: int) -> None:
        self._masses = np.asarray(masses, np.float64)
        self._distance, self._resamples = distance, resamples
        self._nulls: dict[int, np.ndarray] = {}

    @abstractmethod
    def counts(self, window: np.ndarray) -> np.ndarray:
        """Return how many values fall into each cell, shape (cells,)."""

    def statistic(self, window: np.ndarray) -> float:
        """Return the distance of a window from the reference."""
        return float(self._distance(self.counts(window)))

    def score(self, window: np.ndarray, alpha: float = 0.05) -> DriftScore:
        """Hold a window against the reference; see `Fitted.score`."""
        values = known(np.asarray(window))
        return scored(self.statistic(values), self.null(len(values)), alpha, len(values))

    def null(self, n: int) -> np.ndarray:
        """Return the distances of clean windows of `n` values, ascending."""
        if n not in self._nulls:
            drawn = clean_counts(self._masses.tobytes(), n, self._resamples)
            found = [self._distance(each) for each in pieces(drawn)]
            self._nulls[n] = np.sort(np.concatenate(found))
        return self._nulls[n]


def scored(statistic: float, null: np.ndarray, alpha: float, n: int) -> DriftScore:
    """Return where a statistic lies among those of clean windows, which are given ascending."""
    if not 0 < alpha < 1:
        raise InputError(f"`alpha` expects a number between 0 and 1, got {alpha!r}")
    # what is alike in exact arithmetic must count as alike
    slack = 1e-9 * max(abs(statistic), float(np.abs(null).max(initial=0.0)))
    as_far = len(null) - int(np.searchsorted(null, statistic - slack, "left"))
    place = min(len(null) - 1, int(np.ceil((1 - alpha) * (len(null) + 1))) - 1)
    return DriftScore(statistic, (1 + as_far) / (len(null) + 1), float(null[place]), n)


@lru_cache(maxsize=4)
def clean_counts(masses: bytes, n: int, resamples: int) -> np.ndarray:
    """Return the cells' counts of clean windows, shape (resamples, cells).

    Many features have the same masses, those whose values all differ; so what was drawn is kept.
    """
    shape = np.frombuffer(masses, np.float64)
    random = np.random.default_rng(_SEED)
    drawn = np.zeros((resamples, len(shape)), np.int64)
    open_cells = shape > 0
    truths = random.standard_gamma(shape[open_cells], (resamples, int(open_cells.sum())))
    truths /= truths.sum(1, keepdims=True)
    drawn[:, open_cells] = random.multinomial(n, truths)
    drawn.flags.writeable = False
    return drawn


def pieces(drawn: np.ndarray) -> Iterator[np.ndarray]:
    """Yield windows some at a time: few enough for the processor's cache."""
    yield from (drawn[at : at + _AT_ONCE] for at in range(0, len(drawn), _AT_ONCE))
