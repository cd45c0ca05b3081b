"""Pairs and how alike they are: the cosine of two embeddings against a human's judgement.

The model embeds one thing at a time: a batch of n pairs are 2 n of its inputs, a₁, b₁, a₂, b₂, …
The metric is Spearman's rank correlation ρ between the cosines and the labels, as in STS-B (Cer et
al. 2017, arXiv 1708.00055).

ρ is no mean of scores, so what an example adds to it is its jackknife pseudo-value around ρ:

    φᵢ = ρ + (n − 1) (ρ̄₍₋₎ − ρ₍₋ᵢ₎)

where ρ₍₋ᵢ₎ is the correlation without pair i and ρ̄₍₋₎ their mean. The mean of the φᵢ is ρ, their
spread the jackknife's standard error (Tukey 1958; Efron & Tibshirani 1993, chapter 11), so the
verdict's paired test on means is a test on ρ. `--max-drop 0.01` allows ρ to fall by 0.01.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from fettle.core.arrays import Arrays, Batch, Split, rows
from fettle.core.errors import DataError
from fettle.tasks._data import Data
from fettle.tasks._named import pack, unpack
from fettle.tasks._on_data import DataTask
from fettle.tasks._options import Options
from fettle.tasks._rank import pseudo_values
from fettle.tasks._scores import expect, first_of
from fettle.tasks._values import tenths, with_values

if TYPE_CHECKING:
    from torch import Tensor


class Embedding(DataTask):
    """Embedding of texts or of anything else, judged on pairs.

    `size` counts pairs, and so do batches.

    Raises:
        DataError: examples are no pairs, or their labels no numbers.
    """

    metric = "spearman"
    gives_logits = False

    def __init__(self, data: Data, *, seed: int = 0, options: Options | None = None) -> None:
        super().__init__(with_values(_of_pairs(data), "embedding"), seed=seed, options=options)
        labels = np.concatenate([self.targets(split) for split in ("train", "calibrate")])
        self._low, self._high = float(labels.min()), float(labels.max())

    def example_inputs(self, n: int = 2) -> Arrays:
        """Return the first `n` inputs of the calibration split, batch first."""
        return rows(super().example_inputs(-(-n // 2)), 0, n)

    def loss(self, outputs: Tensor, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
        """Return the mean squared difference of cosines and labels, scaled to 0 … 1."""
        import torch
        from torch.nn import functional as F

        del label_smoothing
        cosines = F.cosine_similarity(outputs[0::2], outputs[1::2], dim=1)
        wanted = (batch.targets - self._low) / max(self._high - self._low, 1e-12)
        targets = torch.as_tensor(wanted, dtype=outputs.dtype, device=outputs.device)
        return (cosines - targets).square().mean()

    def score(self, outputs: Arrays, batch: Batch) -> np.ndarray:
        """Return the cosine of each pair, shape (n,); −1 where an embedding is zero or not finite.

        Raises:
            ModelError: the first output is not of shape (2 n, features).
        """
        found = first_of(outputs)
        expect(found, (2 * len(batch), *found.shape[1:2]), "an embedding model")
        left, right = (found[side::2].astype(np.float64) for side in (0, 1))
        with np.errstate(all="ignore"):
            lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
            cosines = (left * right).sum(axis=1) / lengths
        return np.where(np.isfinite(cosines), cosines, -1.0)

    def contributions(self, scores: np.ndarray, split: Split) -> np.ndarray:
        """Return the pseudo-values of Spearman's ρ, shape (n,): their mean is ρ."""
        return pseudo_values(scores, self.targets(split))

    def _folded(self, raw: np.ndarray) -> np.ndarray:
        if raw.dtype.names:
            return pack({name: _both(array) for name, array in unpack(raw).items()})
        return _both(raw)

    def _learned(self, train: np.ndarray, **how: bool) -> Data:
        return super()._learned(train, apart=True, **how)

    def _strata(self) -> np.ndarray:
        return tenths(self.data.pool.y)

    def _check(self) -> None:
        super()._check()
        if self.data.pool.y.ndim != 1:
            raise DataError("`embedding` expects one label a pair: how alike both are, shape (n,)")


def _both(array: np.ndarray) -> np.ndarray:
    return array.reshape(2 * len(array), *array.shape[2:])


def _of_pairs(data: Data) -> Data:
    """Return the data, of which each example holds two of the model's inputs."""
    shapes = [data.pool.shape]
    if not data.pool.shape and not data.pairs:
        kind = data.pool.take(np.array([0])).dtype
        shapes = [kind[name].shape for name in kind.names or ()]
    if not data.pairs and not (shapes and all(shape[:1] == (2,) for shape in shapes)):
        raise DataError(
            "`embedding` expects pairs: a table with `text` and `text2`, or arrays of shape"
            f" (n, 2, …); got examples of shape {[list(shape) for shape in shapes]}"
        )
    return replace(data, augment="none", classes=0)
