"""Products of uint8 and int8, summed in pairs in 16 bits that saturate: `vpmaddubsw`.

A processor without VNNI computes sat16(u₀ · w₀ + u₁ · w₁) for each two neighbours along the sum
and adds these in 32 bits. u is the raw unsigned number, before its zero point is taken off.

Few pairs of weights can saturate at all, because u <= 255: only where the parts of one sign add up
to more than 128. Only those are computed, and only where the activations are large enough, which is
exact and makes whole networks affordable.

Reference: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, PMADDUBSW.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

HIGHEST, LOWEST = 2**15 - 1, -(2**15)

Column = Callable[[int], np.ndarray]


@dataclass(frozen=True)
class Excess:
    """What saturation does to the accumulators of one layer.

    Attributes:
        change: saturated less exact accumulators, int32, shape (outputs, rows).
        saturated: pairs that saturated.
        pairs: pairs in all.
    """

    change: np.ndarray
    saturated: int
    pairs: int


def excess(column: Column, weight: np.ndarray, tops: np.ndarray, rows: int) -> Excess:
    """Return what saturation does to `rows` sums with each of the columns of `weight`.

    Args:
        column: gives the activations that meet row k of the weight, uint8, shape (rows,).
        weight: int8, shape (K, outputs).
        tops: a bound of the activations of each k, shape (K,).
        rows: how many sums each output has.
    """
    w = _even(weight.astype(np.int32))
    t = _even(tops.astype(np.int32)[:, None])
    change = np.zeros((weight.shape[1], rows), np.int32)
    saturated = 0
    for pair, outputs in _candidates(w, t):
        first, second = w[2 * pair, outputs], w[2 * pair + 1, outputs]
        u = column(2 * pair).astype(np.int32)
        v = column(2 * pair + 1).astype(np.int32) if 2 * pair + 1 < len(weight) else 0 * u
        large = np.flatnonzero(np.abs(first).max() * u + np.abs(second).max() * v > HIGHEST)
        if large.size:
            sums = np.outer(first, u[large]) + np.outer(second, v[large])  # (candidates, large)
            over = np.clip(sums, LOWEST, HIGHEST) - sums
            change[np.ix_(outputs, large)] += over
            saturated += int(np.count_nonzero(over))
    return Excess(change, saturated, len(w) // 2 * change.size)


def work(weight: np.ndarray, tops: np.ndarray, rows: int) -> int:
    """Return how many pairs at most `excess` would compute."""
    w, t = _even(weight.astype(np.int32)), _even(tops.astype(np.int32)[:, None])
    return rows * sum(len(outputs) for _, outputs in _candidates(w, t))


def matrix_columns(left: np.ndarray) -> tuple[Column, np.ndarray]:
    """Return the columns of a matrix (rows, K) of uint8, and a bound of each."""
    tops = left.max(axis=0, initial=0)
    return lambda k: left[:, k], tops


def image_columns(
    x: np.ndarray, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[Column, np.ndarray]:
    """Return the columns of the matrix that a convolution multiplies, and a bound of each.

    Columns run over kernel positions first and channels last, as the engines' matrices do, which
    says who is whose neighbour.

    Args:
        x: one group's padded activations, uint8, shape (n, channels, *space).
        kernel: its size along each axis of space.
        strides: of each axis.
        dilations: of each axis.
    """
    channels, places = x.shape[1], list(product(*(range(size) for size in kernel)))
    out = [
        (space - (k - 1) * d - 1) // s + 1
        for space, k, s, d in zip(x.shape[2:], kernel, strides, dilations, strict=True)
    ]

    def column(k: int) -> np.ndarray:
        place, channel = divmod(k, channels)
        cut = [
            slice(at * d, at * d + (size - 1) * s + 1, s)
            for at, d, s, size in zip(places[place], dilations, strides, out, strict=True)
        ]
        found: np.ndarray = x[(slice(None), channel, *cut)].reshape(-1)
        return found

    tops = x.max(axis=(0, *range(2, x.ndim)), initial=0)
    return column, np.tile(tops, len(places))


def _even(matrix: np.ndarray) -> np.ndarray:
    """Add a row of zeros where the last row has no neighbour."""
    return np.pad(matrix, ((0, len(matrix) % 2), (0, 0)))


def _candidates(w: np.ndarray, tops: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Return the pairs along K, and for each the outputs, whose sum may leave 16 bits."""
    high, low = np.maximum(w, 0) * tops, np.minimum(w, 0) * tops
    may = (high[0::2] + high[1::2] > HIGHEST) | (low[0::2] + low[1::2] < LOWEST)  # (K / 2, outputs)
    return [(int(pair), np.flatnonzero(may[pair])) for pair in np.flatnonzero(may.any(axis=1))]
