"""Against the instruction's definition, one scalar at a time."""

import numpy as np
import pytest

from fettle.measure._pairs16 import excess, image_columns, matrix_columns, work

RNG = np.random.default_rng(0)


def sat16(number):
    return max(-(2**15), min(2**15 - 1, number))


def by_scalars(u, w):
    """u (rows, K) uint8, w (K, outputs) int8 → change (outputs, rows), saturated pairs."""
    rows, k = u.shape
    change, saturated = np.zeros((w.shape[1], rows), int), 0
    for row in range(rows):
        for output in range(w.shape[1]):
            for at in range(0, k, 2):
                pair = sum(int(u[row, i]) * int(w[i, output]) for i in range(at, min(at + 2, k)))
                change[output, row] += sat16(pair) - pair
                saturated += sat16(pair) != pair
    return change, saturated


@pytest.mark.parametrize("k", [1, 2, 7, 16])
@pytest.mark.parametrize("least", [0, 128])
def test_matrices(k, least):
    u = RNG.integers(least, 256, (6, k)).astype(np.uint8)
    w = RNG.integers(-128, 128, (k, 5)).astype(np.int8)
    found = excess(*_columns_and_weight(u, w), rows=6)
    change, saturated = by_scalars(u, w)
    np.testing.assert_array_equal(found.change, change)
    assert found.saturated == saturated
    assert found.pairs == 6 * 5 * -(-k // 2)
    assert saturated > 0 or k <= 2  # or the test tells nothing


def _columns_and_weight(u, w):
    column, tops = matrix_columns(u)
    return column, w, tops


def test_the_bounds_of_16_bits_themselves_are_no_saturation():
    for activations, weight, change in (
        ((255, 3), 127, 0),  # 32766
        ((128, 128), -128, 0),  # -32768 fits
        ((255, 4), 127, 32767 - 32893),
        ((129, 128), -128, 128),
    ):
        u, w = np.array([activations], np.uint8), np.full((2, 1), weight, np.int8)
        found = excess(*_columns_and_weight(u, w), rows=1)
        assert found.change.item() == change
        assert found.saturated == (change != 0)


def test_weights_of_7_bits_never_saturate():
    u = np.full((3, 8), 255, np.uint8)
    for number in (-64, 64):
        w = np.full((8, 4), number, np.int8)
        column, tops = matrix_columns(u)
        assert excess(column, w, tops, 3).saturated == 0
        assert work(w, tops, 3) == 0


def test_work_counts_what_may_saturate():
    w = np.zeros((4, 3), np.int8)
    w[:2, 1] = 127
    assert work(w, np.full(4, 255), 10) == 10
    assert work(w, np.full(4, 64), 10) == 0  # activations this small can't


@pytest.mark.parametrize(
    ("shape", "kernel", "strides", "dilations"),
    [
        ((2, 3, 7, 6), (3, 2), (2, 1), (1, 1)),
        ((1, 2, 9, 9), (3, 3), (1, 2), (2, 2)),
        ((2, 4, 11), (5,), (3,), (1,)),
        ((1, 2, 4, 4, 5), (2, 2, 2), (1, 1, 2), (1, 1, 1)),
    ],
)
def test_columns_of_images(shape, kernel, strides, dilations):
    x = RNG.integers(0, 256, shape).astype(np.uint8)
    column, tops = image_columns(x, kernel, strides, dilations)
    out = [(s - (k - 1) * d - 1) // t + 1
           for s, k, t, d in zip(shape[2:], kernel, strides, dilations, strict=True)]  # fmt: skip
    k = 0
    for place in np.ndindex(*kernel):
        for channel in range(shape[1]):
            wanted = []
            for n, *at in np.ndindex(shape[0], *out):
                axes = zip(at, strides, place, dilations, strict=True)
                wanted.append(x[(n, channel, *(o * s + p * d for o, s, p, d in axes))])
            np.testing.assert_array_equal(column(k), wanted)
            assert column(k).max() <= tops[k]
            k += 1
    assert len(tops) == k
