"""From the sum of a model's kernels to its latency: a scale and an offset, and their own error.

    ms = scale · Σ kernels + offset

The scale makes up for what kernels cost each other in a network (caches, changes of layout), the
offset for the call itself. Both are fitted to whole models that were timed, by a robust loss on
the logarithms, for a relative error counts alike in fast and slow models. The error is told by
leaving each model out in turn and predicting it from the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

LEAST = 3  # models, for an error to be known
_FOR_OFFSET = 4  # models; fewer can't tell an offset from a scale
_TOLERANCE = 0.05  # relative; what lies further out counts less


@dataclass(frozen=True)
class Miss:
    """How far predictions lie from the truth, relative to it, over `n` models left out in turn."""

    median: float
    p90: float
    n: int

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)


@dataclass(frozen=True)
class Calibration:
    """How milliseconds of a whole follow from those of its parts."""

    scale: float = 1.0
    offset: float = 0.0

    def __call__(self, parts_ms: float) -> float:
        """Return what a model takes in ms."""
        return self.scale * parts_ms + self.offset


def fit(parts: Sequence[float], wholes: Sequence[float]) -> Calibration:
    """Return the calibration that fits the models best; with none, the one that changes nothing.

    Args:
        parts: the sum of each model's kernels, in ms.
        wholes: what each model takes, in ms.
    """
    if not parts:
        return Calibration()
    x, y = (np.log(np.maximum(values, 1e-9)) for values in (parts, wholes))
    scale = float(np.exp(np.median(y - x)))
    if len(parts) < _FOR_OFFSET:
        return Calibration(scale)
    return _refined(np.exp(x), y, scale)


def miss(parts: Sequence[float], wholes: Sequence[float]) -> Miss | None:
    """Return how far off the predictions are, or None with fewer than 3 models."""
    count = len(parts)
    if count < LEAST:
        return None
    found = []
    for out in range(count):
        rest = [i for i in range(count) if i != out]
        fitted = fit([parts[i] for i in rest], [wholes[i] for i in rest])
        found.append(abs(fitted(parts[out]) / wholes[out] - 1))
    p90 = float(np.percentile(found, 90, method="inverted_cdf"))
    return Miss(float(np.median(found)), p90, count)


def _refined(parts: np.ndarray, log_wholes: np.ndarray, scale: float) -> Calibration:
    """Fit scale and offset together (Huber's loss), neither below zero."""
    from scipy.optimize import least_squares

    unit = float(np.exp(log_wholes.min()))  # the offset counts in the fastest model's time

    def residuals(values: np.ndarray) -> np.ndarray:
        return np.asarray(np.log(values[0] * parts + values[1] * unit) - log_wholes)

    start = np.array([scale, 0.05])
    bounds = (np.array([1e-3 * scale, 0.0]), np.array([1e3 * scale, 1.0]))
    found = least_squares(residuals, start, bounds=bounds, loss="huber", f_scale=_TOLERANCE)
    return Calibration(float(found.x[0]), float(found.x[1]) * unit)
