"""Augmentation whose every draw depends on (seed, epoch, position) alone.

Shift is the padded random crop of He et al. (2016, section 4.2), flip the horizontal mirror.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

KINDS = ("none", "shift", "shift-flip")


@dataclass(frozen=True)
class Draws:
    """Everything random about one epoch; row p belongs to the p-th place of the common order."""

    order: np.ndarray
    shifts: np.ndarray
    flips: np.ndarray

    @classmethod
    def of(cls, seed: int, epoch: int, n: int, shift: int) -> Draws:
        """Draw the order of `n` examples, their shifts (0 … 2·shift, down and right), flips."""
        rng = np.random.default_rng([seed, epoch])
        order = rng.permutation(n)
        shifts = rng.integers(0, 2 * shift + 1, size=(n, 2))
        return cls(order, shifts, rng.random(n) < 0.5)


def augment(images: np.ndarray, kind: str, shift: int, draws: Draws, at: np.ndarray) -> np.ndarray:
    """Return `images` (n, c, h, w) shifted, and mirrored if `kind` says so.

    Args:
        images: raw values; what is shifted in from outside is 0.
        kind: one of `KINDS`.
        shift: how many pixels at most.
        draws: of the epoch.
        at: positions of these images in the epoch, shape (n,).
    """
    if kind == "none":
        return images
    shifted = _shift(images, shift, draws.shifts[at])  # (n, c, h, w)
    if kind == "shift":
        return shifted
    flips = draws.flips[at][:, None, None, None]
    return np.where(flips, shifted[..., ::-1], shifted)


def _shift(images: np.ndarray, shift: int, by: np.ndarray) -> np.ndarray:
    padded = np.pad(images, ((0, 0), (0, 0), (shift, shift), (shift, shift)))
    windows = sliding_window_view(padded, images.shape[2:], axis=(2, 3))  # (n, c, 2s+1, 2s+1, h, w)
    return np.asarray(windows[np.arange(len(images)), :, by[:, 0], by[:, 1]])
