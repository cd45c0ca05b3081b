"""Values in cells: bins of numbers, classes, and the gaps between the reference's own numbers."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

_FEW = 10  # examples that a class has in the reference on average, for classes to stand singly
_HALF = 0.5  # Jeffreys' prior
_UNSEEN = 0.2  # of an example: what was never seen may come, though nothing foretells it


@dataclass(frozen=True, eq=False)
class Cells:
    """Cells that were made of a reference.

    Attributes:
        reference: how many of its values lie in each, shape (cells,).
        masses: of the Dirichlet distribution that the truth is drawn from, shape (cells,).
        edges: upper ends of bins, or the classes, ascending; empty where classes are hashed.
        classes: whether these are classes.
    """

    reference: np.ndarray
    masses: np.ndarray
    edges: np.ndarray
    classes: bool

    def counts(self, values: np.ndarray) -> np.ndarray:
        """Return how many of `values` lie in each cell, shape (cells,)."""
        if not self.classes:
            places = np.searchsorted(self.edges, values, "left")
        elif len(self.edges):
            places = _of_classes(self.edges, values)
        else:
            places = _hashed(values, len(self.masses))
        return np.bincount(places, minlength=len(self.masses))


def cells_of(reference: np.ndarray, bins: int) -> Cells:
    """Return cells: a number's are bins that hold equal shares of the reference.

    A class has a cell of its own, and what the reference doesn't hold has one together; of more
    classes than a tenth of its values, some share a cell, chosen by a hash and so not by chance.

    Source: I. J. Good, Biometrika 40 (1953) 237–264 (how often the unseen comes).
    """
    if reference.dtype.kind == "f":
        edges = np.unique(np.quantile(reference, np.arange(1, bins) / bins, method="lower"))
        found = np.bincount(np.searchsorted(edges, reference, "left"), minlength=len(edges) + 1)
        return Cells(found, found + 1 / len(found), edges, False)
    names = np.unique(_text(reference))
    groups = max(2, len(reference) // _FEW)
    if len(names) <= groups:
        found = np.bincount(_of_classes(names, reference), minlength=len(names) + 1)
        masses = found + _HALF
        masses[-1] = _UNSEEN + (found == 1).sum()  # Good and Turing: as often as what came once
        return Cells(found, masses, names, True)
    found = np.bincount(_hashed(reference, groups), minlength=groups)
    return Cells(found, found + _HALF, names[:0], True)


def _of_classes(names: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the place of each value among `names`; one past the end where it isn't there."""
    texts = _text(values)
    places = np.minimum(np.searchsorted(names, texts), len(names) - 1)
    return np.where(names[places] == texts, places, len(names))


def _hashed(values: np.ndarray, groups: int) -> np.ndarray:
    names, places = np.unique(_text(values), return_inverse=True)
    return np.array([zlib.crc32(name.encode()) % groups for name in names])[places]


def _text(values: np.ndarray) -> np.ndarray:
    return np.asarray(values).astype(str)


@dataclass(frozen=True, eq=False)
class Gaps:
    """The reference's numbers and the gaps around them: gap, number, gap, number, …, gap.

    Attributes:
        numbers: those that differ, ascending, shape (k,).
        below: the share of the reference up to the end of each cell, shape (2 k + 1,).
        masses: as those of `Cells`: 1 of each gap, and of a number one less than its repeats.
        places: where in a cell its values lie, shape (2 k + 1,).
    """

    numbers: np.ndarray
    below: np.ndarray
    masses: np.ndarray
    places: np.ndarray

    def counts(self, values: np.ndarray) -> np.ndarray:
        """Return how many of `values` lie in each cell, shape (2 k + 1,)."""
        left = np.searchsorted(self.numbers, values, "left")
        met = np.searchsorted(self.numbers, values, "right") > left
        return np.bincount(2 * left + met, minlength=len(self.masses))


def gaps_of(reference: np.ndarray) -> Gaps:
    """Return the cells of numbers, at least two."""
    numbers, repeats = np.unique(reference, return_counts=True)
    cells = 2 * len(numbers) + 1
    masses, seen = np.ones(cells), np.zeros(cells)
    masses[1::2], seen[1::2] = repeats - 1, repeats
    places = np.empty(cells)
    places[1::2] = numbers
    places[2:-1:2] = (numbers[:-1] + numbers[1:]) / 2
    places[0] = numbers[0] - _beyond(-reference)
    places[-1] = numbers[-1] + _beyond(reference)
    return Gaps(numbers, np.cumsum(seen) / len(reference), masses, places)


def _beyond(values: np.ndarray, tail: int = 10) -> float:
    """Return by how much a next number past the largest would pass it: the mean in a tail e^−x."""
    top = np.sort(values)[-tail - 1 :]
    return (
        float((top[1:] - top[0]).mean() / np.sum(1 / np.arange(1, len(top))))
        if len(top) > 1
        else 0.0
    )
