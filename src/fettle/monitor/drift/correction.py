"""Corrections for many features: what is left of p-values when so many were looked at.

Holm's keeps the chance that any feature of a window alarms by mistake at alpha, however features
hang together. Benjamini and Hochberg's keeps the share of mistakes among the alarms at alpha, for
features that move together or not at all; it alarms more readily. Both are over the features of one
window: over a thousand clean windows Holm's still alarms in alpha of them.

Source: S. Holm, Scandinavian Journal of Statistics 6 (1979) 65–70; Y. Benjamini, Y. Hochberg, JRSS
B 57 (1995) 289–300; Y. Benjamini, D. Yekutieli, Annals of Statistics 29 (2001) 1165–1188.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fettle.core.errors import InputError


def holm(p: Sequence[float]) -> np.ndarray:
    """Return adjusted p-values, shape (k,): an alarm is one of at most alpha.

    Example:
        >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
        [0.03, 0.06, 0.06]
    """
    values, order = _sorted(p)
    factors = np.arange(len(values), 0, -1)
    return _placed(np.maximum.accumulate(np.minimum(1, factors * values)), order)


def benjamini_hochberg(p: Sequence[float]) -> np.ndarray:
    """Return adjusted p-values, shape (k,): an alarm is one of at most alpha.

    Example:
        >>> benjamini_hochberg([0.01, 0.04, 0.03]).round(2).tolist()
        [0.03, 0.04, 0.04]
    """
    values, order = _sorted(p)
    factors = len(values) / np.arange(1, len(values) + 1)
    raised = np.minimum.accumulate((factors * values)[::-1])[::-1]
    return _placed(np.minimum(1, raised), order)


CORRECTIONS: dict[str, Callable[[Sequence[float]], np.ndarray]] = {
    "holm": holm,
    "benjamini-hochberg": benjamini_hochberg,
}


def _sorted(p: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    values = np.asarray(p, np.float64)
    if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all():
        raise InputError(f"p-values expect numbers from 0 to 1 in a row, got {values!r}")
    order = np.argsort(values, kind="stable")
    return values[order], order


def _placed(values: np.ndarray, order: np.ndarray) -> np.ndarray:
    found = np.empty(len(values))
    found[order] = values
    return found
