"""No labels: the share of examples on which a model answers as the original does.

An example counts 1 where the class with the largest logit is the same as the original's, else 0.
The original scores 1 by definition; `--max-drop 0.01` allows a different answer on one example in a
hundred, proven as a loss of accuracy is. That says nothing of how often the original is right, but
accuracy can't fall by more than agreement does.

Training learns from the original alone: its classes are the labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

import numpy as np

from fettle.core.arrays import Arrays, Batch, Split
from fettle.core.errors import ModelError
from fettle.tasks._scores import cross_entropy, first_of, top1
from fettle.tasks._unlabelled import Unlabelled, check_answers

if TYPE_CHECKING:
    from torch import Tensor


class Agreement(Unlabelled):
    """Classification as the original does it."""

    metric = "agreement"

    def answered(self, answers: Mapping[Split, Arrays]) -> Self:
        """Return the task with the original's classes as labels.

        Raises:
            ModelError: the original's first output is no row of logits, or not finite.
        """
        check_answers(answers)
        labels: dict[Split, np.ndarray] = {}
        classes = 0
        for split, outputs in answers.items():
            logits = first_of(outputs)
            if logits.ndim != 2 or logits.shape[1] < 2:
                raise ModelError(
                    "`agreement` expects logits of at least two classes as the model's first"
                    f" output, shape (n, classes), got {list(logits.shape)}; use `--task fidelity`"
                )
            classes = logits.shape[1]
            labels[split] = logits.argmax(axis=1).astype(np.int64)
        return self._judged_by(labels, classes)

    def loss(self, outputs: Tensor, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
        """Return the mean cross-entropy of logits (n, classes) against the original's classes."""
        if self.needs_original:
            self._refuse()
        return cross_entropy(outputs, batch, label_smoothing)

    def score(self, outputs: Arrays, batch: Batch) -> np.ndarray:
        """Return 1.0 where the largest logit is the original's, else 0.0, shape (n,).

        Raises:
            ModelError: the first output is not of shape (n, classes).
        """
        if self.needs_original:
            self._refuse()
        return top1(outputs, batch, self.data.classes)
