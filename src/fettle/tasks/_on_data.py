"""A task on examples of a data source: splits, batches and epochs, whatever it is for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Self

import numpy as np

from fettle.core.arrays import SPLITS, Arrays, Batch, Split, TensorSpec
from fettle.core.errors import DataError, KnobError
from fettle.core.hashing import array_fingerprint, fingerprint
from fettle.core.signature import Signature
from fettle.tasks._arrays import data_of
from fettle.tasks._augment import Draws, augment
from fettle.tasks._data import Data, Examples, Preprocessing
from fettle.tasks._named import MASK, named_data, specs, trimmed, unpack
from fettle.tasks._options import Options
from fettle.tasks._split import FEWEST, carve, default_counts
from fettle.tasks._task import Task

INPUT = "input"
NONE = np.array([], dtype=np.uint64)


class DataTask(Task):
    """A task on images, on token ids, or on anything with one or several arrays an example.

    The splits are disjoint by content; a source's own test set is `test` in whole.

    Raises:
        DataError: there are too few examples, or their labels are none for this kind of task.
    """

    least_train = 1  # examples that are left to train with

    def __init__(self, data: Data, *, seed: int = 0, options: Options | None = None) -> None:
        self.data, self.seed = data, seed
        self.options = options or Options()
        self._check()
        self._digests = data.pool.digests()
        self._own = {split: own.digests() for split, own in data.own_sets.items()}
        self._splits = self._carve()
        if data.learn is not None:
            seen = self._splits["train" if len(self._splits["train"]) else "calibrate"]
            self.data = self._learned(seen)

    @classmethod
    def from_arrays(
        cls,
        x: np.ndarray | Mapping[str, np.ndarray],
        y: np.ndarray | None = None,
        classes: int | None = None,
        seed: int = 0,
    ) -> Self:
        """Return a task on arrays in memory.

        Args:
            x: uint8 images (n, h, w), (n, h, w, c) or (n, c, h, w), scaled to -1 … 1; floats of
                shape (n, …), taken as they are; or several inputs by name, integers among them.
            y: the label of each example, shape (n,) or (n, …); None: there are none.
            classes: how many there are; the largest label says, when this isn't given.
            seed: of the split.

        Raises:
            DataError: of the wrong shape, or invalid.
        """
        made = named_data if isinstance(x, Mapping) else data_of
        return cls(made(x, y, classes=classes), seed=seed)  # type: ignore[arg-type]

    @property
    def signature(self) -> Signature:
        """Inputs and number of classes."""
        pool, classes = self.data.pool, self.data.classes
        if not pool.shape:
            kind = self._folded(pool.take(np.array([0]))).dtype
            return Signature(specs(kind, self.data.variable), classes, self.data.vocabulary)
        raw = self._folded(np.empty((0, *pool.shape), np.float32))
        shape = self._preprocess.normalise(self._preprocess.arrange(raw)).shape[1:]
        return Signature((TensorSpec(INPUT, "float32", (-1, *shape)),), classes)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, if there are any."""
        return self.data.labels

    @property
    def preprocessing(self) -> Mapping[str, Any]:
        """Layout, scale, mean and standard deviation of raw values."""
        return self._preprocess.to_json()

    def example_inputs(self, n: int = 2) -> Arrays:
        """Return the first `n` inputs of the calibration split, batch first.

        Where lengths vary, `n` whose lengths are spread as those of the split: one is the median.
        So what is timed on them is timed at the lengths of the data.
        """
        if not self.data.variable:
            return super().example_inputs(n)
        examples, indices = self._part("calibrate")
        packed = self._folded(examples.take(indices))
        order = np.argsort(packed[MASK].sum(axis=1), kind="stable")
        n = min(n, len(order))
        places = ((np.arange(n) + 0.5) / n * len(order)).astype(int)
        return trimmed(unpack(packed[order[places]]))

    def size(self, split: Split) -> int:
        """Return how many examples a split holds."""
        return len(self._part(split)[1])

    def targets(self, split: Split) -> np.ndarray:
        """Return the label of every example of a split, in its fixed order."""
        examples, indices = self._part(split)
        return np.asarray(examples.y[indices])

    def fingerprint(self, split: Split) -> str:
        """Return a hash of what a split yields: contents, labels, preprocessing, augmentation."""
        _, indices = self._part(split)
        digests = self._own.get(split, self._digests)
        how: dict[str, Any] = {"preprocessing": self.preprocessing}
        if split == "train":
            how["augment"] = [self.augment, self.shift]
        return fingerprint([array_fingerprint(digests[indices], *_plain(self.targets(split))), how])

    def batches(self, split: Split, batch_size: int = 256) -> Iterator[Batch]:
        """Yield a split in its fixed order, without augmentation; the last batch may be short."""
        examples, indices = self._part(split)
        for start in range(0, len(indices), batch_size):
            rows = indices[start : start + batch_size]
            arranged = self._preprocess.arrange(self._folded(examples.take(rows)))
            yield self._batch(arranged, examples.y[rows])

    def epoch(
        self, seed: int, epoch: int, batch_size: int, shard: tuple[int, int] = (0, 1)
    ) -> Iterator[Batch]:
        """Yield one epoch of `train`: shuffled and augmented by (seed, epoch, position) alone.

        Raises:
            DataError: no example is left to train with.
        """
        examples, indices = self._part("train")
        if not len(indices):
            raise DataError(
                "the split `train` is empty, so nothing can be trained; give more examples, or use"
                " what needs no training, such as `quantize.static`"
            )
        draws = Draws.of(seed, epoch, len(indices), self.shift)
        rank, world = shard
        share = np.arange(rank, len(indices) // world * world, world)
        for step in range(self.steps(batch_size, world)):
            at = share[step * batch_size : (step + 1) * batch_size]
            rows = indices[draws.order[at]]
            arranged = self._preprocess.arrange(self._folded(examples.take(rows)))
            changed = augment(arranged, self.augment, self.shift, draws, at)
            yield self._batch(changed, examples.y[rows])

    @property
    def augment(self) -> str:
        """What training does to inputs: none, shift, or shift-flip."""
        chosen = self.options.augment
        return self.data.augment if chosen == "auto" else chosen

    @property
    def shift(self) -> int:
        """The largest shift of the augmentation, in pixels."""
        if self.augment == "none":
            return 0
        if self.options.shift >= 0:
            return self.options.shift
        return self.data.shift or max(self.signature.image[1] // 8, 1)

    @property
    def _preprocess(self) -> Preprocessing:
        return self.data.preprocessing

    def _folded(self, raw: np.ndarray) -> np.ndarray:
        """Return what the model sees of raw examples, one row a call of it."""
        return raw

    def _learned(self, train: np.ndarray, **how: bool) -> Data:
        """Return the data as the model gets it; what that takes is learned from `train` alone."""
        before = self.data
        assert before.learn is not None
        made = before.learn(train, **how)
        same = {name: getattr(before, name) for name in ("classes", "labels", "variable")}
        labels = {split: own.y for split, own in before.own_sets.items()}
        found = replace(made, **same)
        return found.relabelled(lambda _, split: labels[split] if split else before.pool.y)

    def _as(self, kind: type[DataTask]) -> Any:
        """Return this task with its data and its splits as one of another kind."""
        made = kind.__new__(kind)
        made.__dict__.update(self.__dict__)
        return made

    def _part(self, split: Split) -> tuple[Examples, np.ndarray]:
        own = self.data.own_sets.get(split)
        if own is not None:
            return own, np.arange(len(own))
        if split not in self._splits:
            raise KnobError(f"a split is one of {', '.join(SPLITS)}, got `{split}`")
        return self.data.pool, self._splits[split]

    def _batch(self, arranged: np.ndarray, y: np.ndarray) -> Batch:
        if arranged.dtype.names:
            inputs = unpack(arranged)
            return Batch(trimmed(inputs) if self.data.variable else inputs, y)
        return Batch({INPUT: self._preprocess.normalise(arranged)}, y)

    def _carve(self) -> dict[Split, np.ndarray]:
        taken = np.unique(np.concatenate([NONE, *self._own.values()]))
        counts = {
            name: getattr(self.options, name) or count
            for name, count in self._counts(len(np.setdiff1d(self._digests, taken))).items()
            if name not in self._own
        }
        return carve(
            self._strata(), self._digests, counts, taken, self.seed, least=self.least_train
        )

    def _counts(self, distinct: int) -> dict[Split, int]:
        """Return how many examples each carved split takes, where nobody asked for a number."""
        return default_counts(distinct, "test" in self._own)

    def _strata(self) -> np.ndarray:
        """Return a whole number for each example of the pool; splits have the same share of each.

        Here all are alike.
        """
        return np.zeros(len(self.data.pool), np.int64)

    def _check(self) -> None:
        if len(self.data.pool) < FEWEST:
            raise DataError(
                f"at least {FEWEST} examples were expected, got {len(self.data.pool)}: some to"
                " calibrate with, some to choose with, and for a proof some hundreds to test with"
            )
        self._check_augmentation()

    def _check_augmentation(self) -> None:
        if self.augment != "none" and len(self.data.pool.shape) != 3:
            raise KnobError(
                f"`augment={self.augment}` shifts images of three axes; these examples have shape"
                f" {list(self.data.pool.shape)}: use `augment=none`"
            )


def _plain(y: np.ndarray) -> list[np.ndarray]:
    """Return the fields of structured labels, or the labels themselves."""
    return [np.ascontiguousarray(y[name]) for name in y.dtype.names] if y.dtype.names else [y]
