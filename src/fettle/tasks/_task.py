"""The seam of a task: what a model must do, on which data, and how well."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fettle.core.arrays import Arrays, Batch, Split
from fettle.core.signature import Signature

if TYPE_CHECKING:
    from torch import Tensor


class Task(ABC):
    """What the model must do.

    The four splits are disjoint: `train` fits weights, `calibrate` sets ranges, `select` chooses
    among candidates, and `test` is read once, for the verdict. `train` may be empty; then nothing
    can be trained.

    `metric` names what the mean of `contributions` is; 0.01 of it is one point of a budget.
    `gives_logits` says whether outputs are logits of classes, (n, classes), so that a student can
    learn a distribution from its teacher; else it learns the outputs themselves.
    `needs_original` says that the labels are still to come, from the model that is compressed: see
    `answered`.
    """

    metric: str = "top1"
    gives_logits: bool = True
    needs_original: bool = False

    @property
    @abstractmethod
    def signature(self) -> Signature:
        """Inputs, and how many numbers each example gets; 0: whatever the model gives."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, if there are any."""
        return ()

    @property
    def preprocessing(self) -> Mapping[str, Any]:
        """How raw values become inputs, as data for the bundle (mean, std, scale)."""
        return {}

    def example_inputs(self, n: int = 2) -> Arrays:
        """Return the first `n` inputs of the calibration split, batch first."""
        batch = next(iter(self.batches("calibrate", batch_size=n)))
        return batch.inputs

    @abstractmethod
    def batches(self, split: Split, batch_size: int = 256) -> Iterator[Batch]:
        """Yield a split in its fixed order, without augmentation; the last batch may be short."""

    @abstractmethod
    def epoch(
        self, seed: int, epoch: int, batch_size: int, shard: tuple[int, int] = (0, 1)
    ) -> Iterator[Batch]:
        """Yield one epoch of `train`: shuffled and augmented by (seed, epoch) alone.

        `shard` is (rank, world): rank r of w takes every w-th example of the common order; all
        ranks get equally many batches. The last batch is dropped when it is short, unless it is
        the only one.
        """

    @abstractmethod
    def size(self, split: Split) -> int:
        """Return how many examples a split holds."""

    @abstractmethod
    def fingerprint(self, split: Split) -> str:
        """Return a hash of a split's contents."""

    @abstractmethod
    def loss(self, outputs: Tensor, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
        """Return the mean training loss of `outputs` (batch first) as a scalar tensor."""

    @abstractmethod
    def score(self, outputs: Arrays, batch: Batch) -> np.ndarray:
        """Return one score an example, shape (n,), higher is better, so that tests can pair.

        Raises:
            ModelError: the outputs are not of the shape that this task expects.
        """

    def contributions(self, scores: np.ndarray, split: Split) -> np.ndarray:
        """Return what each example adds to the metric, shape (n,): their mean is the metric.

        For a metric that is a mean of scores, as most are, these are the `scores` of the split
        themselves. For one that isn't, they are its pseudo-values: the metric, moved by each
        example's influence on it, so that paired tests on a mean are tests on the metric.
        """
        del split
        return scores

    def guess(self, split: Split) -> float | None:
        """Return the metric of the best answer that ignores its inputs; None where there is none.

        For a classification, the share of the most frequent class.
        """
        del split
        return None

    def answered(self, answers: Mapping[Split, Arrays]) -> Task:
        """Return the same task, judged by what the original model answered in each split.

        Only where `needs_original`; `answers` are the outputs by name, batch first, in the order of
        the split.

        Raises:
            ModelError: the answers are nothing to judge by.
        """
        del answers
        return self

    def steps(self, batch_size: int, world: int = 1) -> int:
        """Return how many batches `epoch` yields on each of `world` ranks."""
        return max(self.size("train") // world // batch_size, 1)
