"""Putting the rows of several requests into one batch, and handing each its own rows back."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate

import numpy as np

from fettle.core.arrays import Arrays
from fettle.core.errors import CheckFailed

_HANDLING = 1e-4  # seconds that a batch costs beside its run
_AS_GOOD = 0.98  # share of the best rate


@dataclass(frozen=True)
class Sizes:
    """The batch sizes that a model may be run at, smallest first, and what each costs.

    `seconds` holds what a run takes; where it is empty, all sizes are taken to cost the same.
    Without any size, requests run alone, as they come.
    """

    proven: tuple[int, ...] = ()
    seconds: Mapping[int, float] = field(default_factory=dict)

    @property
    def largest(self) -> int:
        """The most rows of one run; 0 where requests run alone."""
        return self.proven[-1] if self.proven else 0

    def padded(self, rows: int) -> int:
        """Return the smallest size that holds `rows`, which is at most the largest."""
        return self.proven[bisect_left(self.proven, rows)]

    def within(self, seconds: float) -> Sizes:
        """Return the sizes whose run is known to take at most so long."""
        quick = [size for size in self.proven if self.seconds.get(size, np.inf) <= seconds]
        return Sizes(tuple(quick), self.seconds)

    def choose(self, rows: Sequence[int]) -> int:
        """Return how many of the requests that wait, in their order, make the next batch.

        The fewest that are answered at the best rate (rows a second): what gains nothing from
        company need not wait for it. 0 when the first doesn't fit.
        """
        if not self.proven or not rows or rows[0] > self.largest:
            return 0 if self.proven else min(len(rows), 1)
        rates = [self._rates[total] for total in accumulate(rows) if total <= self.largest]
        enough = _AS_GOOD * max(rates)
        return next(count for count, rate in enumerate(rates, 1) if rate >= enough)

    @cached_property
    def _rates(self) -> list[float]:
        return [0.0] + [
            rows / (self.seconds.get(self.padded(rows), 0.0) + _HANDLING)
            for rows in range(1, self.largest + 1)
        ]


def gather(parts: Sequence[Arrays], size: int) -> Arrays:
    """Return one batch of `size` rows: those of `parts` in order, then rows of the first again.

    Real rows fill it up, as in the checklist's proof: zeros may be what no model has seen.
    """
    first = parts[0]
    rows = sum(rows_of(part) for part in parts)
    if len(parts) == 1 and rows == size:
        return first
    return {name: _joined([part[name] for part in parts], size - rows) for name in first}


def scatter(outputs: Arrays, rows: Sequence[int], size: int) -> list[Arrays]:
    """Return each request's own rows of the outputs of a batch of `size`.

    Raises:
        CheckFailed: the model answered another number of rows than it was given.
    """
    for name, array in outputs.items():
        if array.ndim == 0 or len(array) != size:
            raise CheckFailed(
                f"output `{name}` expects {size} rows for a batch of {size}, got shape"
                f" {list(array.shape)}: this model's rows can't be told apart"
            )
    if len(rows) == 1 and rows[0] == size:
        return [outputs]
    ends = list(accumulate(rows))
    return [
        {name: array[end - count : end] for name, array in outputs.items()}
        for count, end in zip(rows, ends, strict=True)
    ]


def rows_of(inputs: Arrays) -> int:
    """Return the rows of a request: the length of its first input."""
    first = next(iter(inputs.values()), None)
    return len(first) if first is not None and first.ndim else 0


def _joined(parts: list[np.ndarray], missing: int) -> np.ndarray:
    if missing:
        first = parts[0]
        parts = [*parts, np.resize(first, (missing, *first.shape[1:]))]
    return np.concatenate(parts)
