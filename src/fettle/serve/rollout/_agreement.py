"""Whether two models say the same of the same request.

A top-1 disagreement is what bounds accuracy without labels: where both name the same class, both
are right or both are wrong, so that accuracies differ by at most the share of disagreements.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fettle.core.arrays import Arrays
from fettle.core.errors import CheckFailed


class Agreement(NamedTuple):
    """How two answers to one request compare.

    Attributes:
        disagreement: share of its rows in which they differ, 0 to 1.
        classes: whether rows were compared by their class, so that this bounds accuracy.
        difference: mean absolute difference of the first output over its mean size; None where it
            holds no numbers, or some that aren't finite.
    """

    disagreement: float
    classes: bool
    difference: float | None


def compare(answer: Arrays, other: Arrays, tolerance: float) -> Agreement:
    """Compare the first output of `answer`, batch first, with the other's of the same name.

    Rows of scores, shape (n, classes), are compared by their largest; whole numbers and text, of
    shape (n,), by being the same; anything else disagrees where a row's mean difference is more
    than `tolerance` of its mean size. Numbers that aren't finite always disagree.

    Raises:
        CheckFailed: the other has no such output, or one of another shape.
    """
    name, mine = next(iter(answer.items()))
    yours = other.get(name)
    if yours is None or yours.shape != mine.shape or not mine.size:
        raise CheckFailed(
            f"output `{name}` expects the same shape of both models, {list(mine.shape)}, got"
            f" {None if yours is None else list(yours.shape)}"
        )
    if mine.ndim <= 1 and mine.dtype.kind not in "fc":
        return Agreement(float((mine != yours).mean()), True, None)
    if mine.dtype.kind not in "fiub":
        return Agreement(float((_rows(mine) != _rows(yours)).any(1).mean()), False, None)
    return _of_numbers(_rows(mine), _rows(yours), tolerance, mine.ndim == 2 and mine.shape[1] > 1)


def compared(answer: Arrays | None, other: Arrays | None, tolerance: float) -> Agreement | None:
    """Compare as `compare`; None where one is missing, or they can't be compared."""
    if answer is None or other is None:
        return None
    try:
        return compare(answer, other, tolerance)
    except CheckFailed:
        return None


def _of_numbers(mine: np.ndarray, yours: np.ndarray, tolerance: float, classes: bool) -> Agreement:
    a, b = mine.astype(np.float64), yours.astype(np.float64)  # (n, features)
    finite = np.isfinite(a).all(1) & np.isfinite(b).all(1)
    with np.errstate(all="ignore"):
        gaps, sizes = np.abs(a - b).mean(1), np.abs(a).mean(1)
    differ = a.argmax(1) != b.argmax(1) if classes else gaps > tolerance * sizes
    whole = bool(finite.all())
    difference = float(gaps.mean() / (sizes.mean() or 1.0)) if whole else None
    return Agreement(float((differ | ~finite).mean()), classes, difference)


def _rows(array: np.ndarray) -> np.ndarray:
    return array.reshape(len(array) if array.ndim else 1, -1)
