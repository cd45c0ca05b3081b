"""Symmetric rounding of weights: w ≈ q · scale, q a whole number, zero point 0.

By channel at 8 bits, q in −127 … 127; by group at 4 bits, q in −8 … 7.
"""

from __future__ import annotations

import numpy as np

# Shares of a group's largest magnitude that are tried as what the largest code stands for. Below
# 1 the ends are clipped, which pays when one outlier would coarsen a whole group; 7/8 lets the
# code −8, which has no positive twin, stand for the largest.
_SHARES = (1.0, 0.95, 0.9, 7 / 8, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6)


def by_channel(weight: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Return int8 codes of the weight's shape, and float32 scales, one for each index of `axis`.

    A channel of zeros gets scale 1.
    """
    axis %= weight.ndim
    others = tuple(i for i in range(weight.ndim) if i != axis)
    scale = _positive(np.abs(weight).max(axis=others, keepdims=True) / np.float32(127))
    codes = np.clip(np.rint(weight / scale), -127, 127).astype(np.int8)
    return codes, scale.reshape(-1)


def by_group(weight: np.ndarray, axis: int, group: int) -> tuple[np.ndarray, np.ndarray]:
    """Return 4-bit codes (as int8) and scales for groups of `group` numbers along `axis`.

    The scale of each group is the one of some that leaves the smallest squared error. The scales
    have the weight's shape with `axis` divided by `group`, which must be whole.
    """
    moved = np.moveaxis(weight, axis, -1)
    grouped = moved.reshape(*moved.shape[:-1], -1, group)  # (…, groups, group)
    largest = np.abs(grouped).max(axis=-1, keepdims=True) / np.float32(7)
    best, least = _positive(largest), np.full(largest.shape, np.inf, np.float32)
    for share in _SHARES:
        scale = _positive(largest * np.float32(share))
        error = np.square(_rounded(grouped, scale) * scale - grouped).sum(-1, keepdims=True)
        best = np.where(error < least, scale, best)
        least = np.minimum(error, least)
    codes = _rounded(grouped, best).astype(np.int8).reshape(moved.shape)
    back = (np.moveaxis(array, -1, axis) for array in (codes, best[..., 0]))
    codes, scales = (np.ascontiguousarray(array) for array in back)
    return codes, scales


def _rounded(weight: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return np.asarray(np.clip(np.rint(weight / scale), -8, 7))


def _positive(scale: np.ndarray) -> np.ndarray:
    """Return the scales in float32, 1 where they are zero or too small to be told from it."""
    scale = scale.astype(np.float32)
    return np.where(scale < np.finfo(np.float32).tiny, np.float32(1), scale)
