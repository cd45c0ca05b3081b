"""One label out of several: cross-entropy to train, top-1 correctness to score."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fettle.core.arrays import Arrays, Batch, Split
from fettle.core.errors import DataError
from fettle.tasks._on_data import DataTask
from fettle.tasks._options import Options
from fettle.tasks._scores import cross_entropy, top1
from fettle.tasks._split import FEWEST

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Classification", "Options"]


class Classification(DataTask):
    """Classification of images, of token ids, or of anything with one or several arrays an example.

    The splits are stratified by class and disjoint by content; a source's own test set is `test`
    in whole. The metric is `top1`: the share of examples whose largest logit is their class's.

    Raises:
        DataError: there are too few examples or classes.
    """

    metric = "top1"

    def loss(self, outputs: Tensor, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
        """Return the mean cross-entropy of logits (n, classes), as a scalar tensor."""
        return cross_entropy(outputs, batch, label_smoothing)

    def score(self, outputs: Arrays, batch: Batch) -> np.ndarray:
        """Return 1.0 where the largest logit is the target's, else 0.0, shape (n,).

        Raises:
            ModelError: the first output is not of shape (n, classes).
        """
        return top1(outputs, batch, self.data.classes)

    def guess(self, split: Split) -> float:
        """Return the share of the most frequent class in a split."""
        targets = self.targets(split)
        return float(np.bincount(targets).max() / len(targets))

    def _strata(self) -> np.ndarray:
        return self.data.pool.y

    def _check(self) -> None:
        if not self.data.classes:
            found = "values" if self.data.labelled else "nothing"
            raise DataError(
                f"`classification` expects whole numbers as labels, one class an example, got"
                f" {found}; use `--task regression` for values, `--task agreement` where there are"
                " no labels"
            )
        seen = len(np.unique(self.data.pool.y))
        if len(self.data.pool) < FEWEST or seen < 2 or self.data.classes < 2:
            raise DataError(
                f"at least {FEWEST} examples of at least 2 classes were expected, got"
                f" {len(self.data.pool)} of {seen}"
            )
        self._check_augmentation()
