"""Scores and losses that several kinds of task share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fettle.core.arrays import Arrays, Batch
from fettle.core.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor


def first_of(outputs: Arrays) -> np.ndarray:
    """Return the first output, which is the model's answer."""
    return np.asarray(next(iter(outputs.values())))


def expect(found: np.ndarray, shape: tuple[int, ...], who: str) -> None:
    """Raise ModelError unless the first output has this shape."""
    if found.shape != shape:
        raise ModelError(
            f"{who}'s first output is expected to have shape {list(shape)} (examples first), got"
            f" {list(found.shape)}; give the model and the data that belong together"
        )


def top1(outputs: Arrays, batch: Batch, classes: int) -> np.ndarray:
    """Return 1.0 where the largest logit is the target's, else 0.0, shape (n,).

    Raises:
        ModelError: the first output is not of shape (n, classes).
    """
    logits = first_of(outputs)
    if logits.shape != (len(batch), classes):
        raise ModelError(
            f"a classifier's first output is expected to have shape"
            f" {[len(batch), classes]} (examples, classes), got {list(logits.shape)}"
        )
    sound = ~np.isnan(logits).any(axis=1)  # argmax would call the first NaN the largest
    return np.asarray((logits.argmax(axis=1) == batch.targets) & sound, dtype=np.float64)


def cross_entropy(outputs: Tensor, batch: Batch, label_smoothing: float) -> Tensor:
    """Return the mean cross-entropy of logits (n, classes), as a scalar tensor."""
    import torch
    from torch.nn import functional as F

    targets = torch.as_tensor(batch.targets, device=outputs.device)
    return F.cross_entropy(outputs, targets, label_smoothing=label_smoothing)
