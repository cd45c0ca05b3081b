"""Values to predict: squared error to train, R² to judge.

    R² = 1 − Σ (y − ŷ)² / Σ (y − ȳ)²

1 is a perfect prediction, 0 as good as always saying the mean ȳ of the split. With several values
an example, both sums run over all of them; where their scales differ, give them standardised.

What an example adds to R² is 1 − (y − ŷ)² / Var(y), whose mean over the split is R² exactly, so the
verdict's paired test is a test on R². `--max-drop 0.01` allows a hundredth of the variance more
than the original leaves unexplained.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from fettle.core.arrays import Arrays, Batch, Split
from fettle.core.errors import DataError
from fettle.tasks._data import Data
from fettle.tasks._on_data import DataTask
from fettle.tasks._options import Options
from fettle.tasks._scores import expect, first_of
from fettle.tasks._values import columns, tenths, with_values

if TYPE_CHECKING:
    from torch import Tensor

SPREAD: tuple[Split, ...] = ("train", "select", "test")  # whose labels have to vary
_MOST = 1e6  # variances


class Regression(DataTask):
    """Regression of one value or several; the splits have the same share of each tenth of them.

    Raises:
        DataError: there are too few examples, or their labels are no numbers, or all the same.
    """

    metric = "r2"
    gives_logits = False

    def __init__(self, data: Data, *, seed: int = 0, options: Options | None = None) -> None:
        valued = with_values(data, "regression")
        values = columns(valued.pool.y).shape[1]
        super().__init__(replace(valued, classes=values), seed=seed, options=options)
        self._variance = {split: _spread(self.targets(split), split) for split in SPREAD}

    def loss(self, outputs: Tensor, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
        """Return the mean squared error over the variance of `train`, as a scalar tensor."""
        import torch

        del label_smoothing
        targets = torch.as_tensor(columns(batch.targets), dtype=outputs.dtype)
        squared = (outputs - targets.to(outputs.device)).square().sum(dim=1)
        return squared.mean() / self._variance["train"]

    def score(self, outputs: Arrays, batch: Batch) -> np.ndarray:
        """Return minus the squared error of each example, summed over its values, shape (n,).

        An error that is no finite number, or past a million variances, counts as that.

        Raises:
            ModelError: the first output is not of shape (n, values).
        """
        found, wanted = first_of(outputs), columns(batch.targets)
        expect(found, wanted.shape, "a regression model")
        with np.errstate(all="ignore"):
            squared = np.square(wanted - found.astype(np.float64)).sum(axis=1)
        most = _MOST * self._variance["train"]
        return np.asarray(-np.nan_to_num(squared, nan=most, posinf=most).clip(max=most))

    def contributions(self, scores: np.ndarray, split: Split) -> np.ndarray:
        """Return 1 − (y − ŷ)² / Var(y) for each example: their mean is R²."""
        variance = self._variance.get(split) or _spread(self.targets(split), split)
        return 1 + scores / variance

    def _strata(self) -> np.ndarray:
        return tenths(self.data.pool.y)


def _spread(y: np.ndarray, split: Split) -> float:
    """Return the variance of labels, summed over the values of an example."""
    variance = float(columns(y).var(axis=0).sum()) if len(y) else 0.0
    if variance <= 0:
        raise DataError(
            f"the labels of the split `{split}` are all the same, so there is nothing to predict;"
            " give more examples, or a larger split"
        )
    return variance
