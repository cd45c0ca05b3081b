"""Examples without labels: a model is judged by what the original says of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn, Self

import numpy as np

from fettle.core.arrays import SPLITS, Arrays, Batch, Split
from fettle.core.errors import DataError, ModelError
from fettle.tasks._data import Data, no_labels
from fettle.tasks._on_data import DataTask
from fettle.tasks._options import Options
from fettle.tasks._scores import first_of
from fettle.tasks._split import unlabelled_counts

if TYPE_CHECKING:
    from torch import Tensor

_ONE_SIDED = 0.9  # where one class wins more often than this, agreement says too little


class Unlabelled(DataTask):
    """A task whose labels the original model gives; until then it has inputs alone.

    It becomes `agreement` where the original's outputs look like logits: one row of at least two
    numbers an example, of which now one and now another is the largest. Else it becomes `fidelity`.
    Labels that the data may have are left out of account.
    """

    metric = "agreement"
    needs_original = True
    least_train = 0

    def __init__(self, data: Data, *, seed: int = 0, options: Options | None = None) -> None:
        bare = data.relabelled(lambda part, _: no_labels(len(part)))
        super().__init__(bare, seed=seed, options=options)

    def answered(self, answers: Mapping[Split, Arrays]) -> DataTask:
        """Return the task that suits what the original answered in each split.

        Raises:
            ModelError: the answers are no finite numbers, or all the same.
        """
        from fettle.tasks.agreement import Agreement
        from fettle.tasks.fidelity import Fidelity

        found: Any = Agreement if look_like_logits(answers) else Fidelity
        made: DataTask = self._as(found).answered(answers)
        return made

    def loss(self, outputs: Tensor, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
        """Refuse: there is nothing to learn from yet."""
        del outputs, batch, label_smoothing
        self._refuse()

    def score(self, outputs: Arrays, batch: Batch) -> np.ndarray:
        """Refuse: there is nothing to judge by yet."""
        del outputs, batch
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise DataError(
            "this data has no labels, and the original model hasn't answered yet: use `fettle"
            " optimize` or `fettle compress`, which ask it first, or give labels"
        )

    def _judged_by(self, labels: Mapping[Split, np.ndarray], classes: int) -> Self:
        """Return the same task with these labels."""
        made: Self = self._as(type(self))
        some = next(iter(labels.values()))
        y = np.zeros((len(self.data.pool), *some.shape[1:]), some.dtype)
        for split, found in labels.items():
            if split in self._splits:
                y[self._splits[split]] = found
        names = self.data.labels if len(self.data.labels) == classes else ()
        judged = self.data.relabelled(lambda _, split: labels[split] if split else y)
        made.data = replace(judged, classes=classes, labels=names)
        made.needs_original = False
        return made

    def _counts(self, distinct: int) -> dict[Split, int]:
        return unlabelled_counts(distinct, "test" in self._own)


def look_like_logits(answers: Mapping[Split, Arrays]) -> bool:
    """Say whether the first output ranks classes, and not the same one first nearly always."""
    rows = [first_of(outputs) for outputs in answers.values()]
    if any(array.ndim != 2 or array.shape[1] < 2 for array in rows):
        return False
    winners = np.concatenate([array.argmax(axis=1) for array in rows])
    return float(np.bincount(winners).max()) <= _ONE_SIDED * len(winners)


def check_answers(answers: Mapping[Split, Arrays]) -> None:
    """Raise ModelError when the original's outputs hold NaN or infinity."""
    for split in SPLITS:
        for name, array in answers.get(split, {}).items():
            if not np.isfinite(array).all():
                raise ModelError(
                    f"the original model's output `{name}` holds NaN or infinity on the split"
                    f" `{split}`, so nothing can be judged by it; mend the model or those examples"
                )
