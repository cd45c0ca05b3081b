"""Rows of the log, of many answers at once: on a thread of its own, and cheap enough not to matter.

A server that answers thousands of requests a second can't afford the tens of microseconds that a
softmax costs for each: numpy's calls cost more than their sums. So what is wanted of outputs of one
shape is worked out for all of them together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fettle.core.arrays import Arrays
from fettle.monitor.prediction import OK, Prediction

_WHOLE = 1e-3  # by how much probabilities may miss a sum of one
_MOST_SCORES = 1 << 18  # that are held at once: 2 MiB
Top = tuple[int, float]


class Answered(NamedTuple):
    """One request that was answered or failed, as a service saw it; it takes no time to make.

    Attributes:
        timing: how long it waited and was computed, in seconds, and how many rows ran with it.
        total_s: from its first byte to its answer, in seconds.
        error: why it failed; None when it didn't.
        agreement: of a shadow, with what was answered; None where that isn't known.

    The others are as in `Prediction`.
    """

    id: str
    time_ns: int
    model: str
    version: str
    sha: str
    route: str
    key: str
    protocol: str
    timing: tuple[float, float, int]
    total_s: float
    inputs: Arrays
    outputs: Arrays | None = None
    error: BaseException | None = None
    agreement: float | None = None


def predictions(answered: Sequence[Answered]) -> list[Prediction]:
    """Return the rows of the log, without arrays, in the order of `answered`."""
    tops = tops_of([each.outputs for each in answered])
    return [_prediction(each, top) for each, top in zip(answered, tops, strict=True)]


def tops_of(outputs: Sequence[Arrays | None]) -> list[Top | None]:
    """Return the largest class of each classification of one example, and its probability.

    The first output, of shape (1, classes); the probability is by the softmax, unless the numbers
    are probabilities already. None for anything else, and for numbers that are not finite.
    """
    found: list[Top | None] = [None] * len(outputs)
    alike: dict[tuple[Any, ...], list[int]] = {}
    firsts = [next(iter(each.values()), None) if each else None for each in outputs]
    for at, first in enumerate(firsts):
        if first is not None and first.ndim == 2 and len(first) == 1 and first.dtype.kind in "fiu":
            alike.setdefault((first.shape, first.dtype), []).append(at)
    for (shape, _), every in alike.items():
        together = max(1, _MOST_SCORES // max(1, shape[1]))
        for start in range(0, len(every), together):
            places = every[start : start + together]
            scores = np.concatenate([firsts[at] for at in places])  # (n, classes)
            for at, top in zip(places, _tops(scores.astype(np.float64)), strict=True):
                found[at] = top
    return found


def nbytes(inputs: Arrays | None, outputs: Arrays | None) -> int:
    """Return what arrays hold in memory; written out, for it is asked of each request."""
    size = 0
    for arrays in (inputs, outputs):
        if arrays:
            for array in arrays.values():
                size += array.nbytes
    return size


def _tops(scores: np.ndarray) -> list[Top | None]:
    if not scores.size:
        return [None] * len(scores)
    finite = np.isfinite(scores).all(1)
    scores = np.where(finite[:, None], scores, 0)
    whole = (scores.min(1) >= 0) & (np.abs(scores.sum(1) - 1) < _WHOLE)
    tops, peaks = scores.argmax(1), scores.max(1)
    softmax = 1 / np.exp(scores - peaks[:, None]).sum(1)
    confident = np.where(whole, peaks, softmax)
    pairs = zip(tops.tolist(), confident.tolist(), strict=True)
    return [pair if known else None for pair, known in zip(pairs, finite.tolist(), strict=True)]


def _prediction(seen: Answered, top: Top | None) -> Prediction:
    """Return the row; its fields are set at once, for a frozen class sets them slowly."""
    error = seen.error
    queue_s, compute_s, batch = seen.timing
    row = object.__new__(Prediction)
    fields = {
        "id": seen.id,
        "time": seen.time_ns,
        "model": seen.model,
        "version": seen.version,
        "sha": seen.sha,
        "route": seen.route,
        "key": seen.key,
        "status": type(error).__name__ if error else OK,
        "error": str(error.__cause__ or error) if error else "",
        "batch": batch,
        "queue_us": round(queue_s * 1e6),
        "compute_us": round(compute_s * 1e6),
        "total_us": round(seen.total_s * 1e6),
        "protocol": seen.protocol,
        "top": top[0] if top else None,
        "confidence": top[1] if top else None,
        "agreement": seen.agreement,
        "label": None,
        "inputs": None,
        "outputs": None,
    }
    object.__setattr__(row, "__dict__", fields)
    return row
