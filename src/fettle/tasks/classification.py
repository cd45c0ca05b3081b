"""One label out of several: cross-entropy to train, top-1 correctness to score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np

from fettle.core.arrays import SPLITS, Arrays, Batch, Split, TensorSpec
from fettle.core.errors import DataError, KnobError, ModelError
from fettle.core.hashing import array_fingerprint, fingerprint
from fettle.core.knobs import Choice, Range
from fettle.core.plugin import Plugin
from fettle.core.signature import Signature
from fettle.tasks._arrays import data_of
from fettle.tasks._augment import KINDS, Draws, augment
from fettle.tasks._data import Data, Examples, Preprocessing
from fettle.tasks._named import named_data, specs, unpack
from fettle.tasks._split import FEWEST, carve, default_counts
from fettle.tasks._task import Task

if TYPE_CHECKING:
    from torch import Tensor

INPUT = "input"
NONE = np.array([], dtype=np.uint64)


@dataclass(frozen=True, kw_only=True)
class Options(Plugin):
    """What may be changed about a task, whatever its data source."""

    plugin_name: ClassVar[str] = "task"

    augment: Annotated[
        str, Choice("auto", *KINDS), "augmentation in training; auto: what suits the source"
    ] = "auto"
    shift: Annotated[int, Range(-1, 64, "pixels"), "largest shift; -1: what suits the source"] = -1
    test: Annotated[int, Range(0, 1e9, "examples"), "to carve for the verdict; 0: by size"] = 0
    select: Annotated[int, Range(0, 1e9, "examples"), "to choose with; 0: by size"] = 0
    calibrate: Annotated[int, Range(0, 1e9, "examples"), "to set ranges with; 0: by size"] = 0


class Classification(Task):
    """Classification of images, of token ids, or of anything with one or several arrays an example.

    The splits are stratified by class and disjoint by content; a source's own test set is `test`
    in whole.

    Raises:
        DataError: there are too few examples or classes.
    """

    metric = "top1"

    def __init__(self, data: Data, *, seed: int = 0, options: Options | None = None) -> None:
        self.data, self.seed = data, seed
        self.options = options or Options()
        self._check()
        self._digests = data.pool.digests()
        self._own_test = data.test.digests() if data.test is not None else NONE
        self._splits = self._carve()
        if data.learn is not None:
            self.data = data.learn(self._splits["train"])

    @classmethod
    def from_arrays(
        cls,
        x: np.ndarray | Mapping[str, np.ndarray],
        y: np.ndarray,
        classes: int | None = None,
        seed: int = 0,
    ) -> Classification:
        """Return a task on arrays in memory.

        Args:
            x: uint8 images (n, h, w), (n, h, w, c) or (n, c, h, w), scaled to -1 … 1; floats of
                shape (n, …), taken as they are; or several inputs by name, integers among them.
            y: class of each example, shape (n,).
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
            return Signature(specs(pool.take(np.array([0])).dtype), classes, self.data.vocabulary)
        raw = np.empty((0, *pool.shape), np.float32)
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

    def size(self, split: Split) -> int:
        """Return how many examples a split holds."""
        return len(self._part(split)[1])

    def fingerprint(self, split: Split) -> str:
        """Return a hash of what a split yields: contents, labels, preprocessing, augmentation."""
        examples, indices = self._part(split)
        digests = self._digests if examples is self.data.pool else self._own_test
        how: dict[str, Any] = {"preprocessing": self.preprocessing}
        if split == "train":
            how["augment"] = [self.augment, self.shift]
        return fingerprint([array_fingerprint(digests[indices], examples.y[indices]), how])

    def batches(self, split: Split, batch_size: int = 256) -> Iterator[Batch]:
        """Yield a split in its fixed order, without augmentation; the last batch may be short."""
        examples, indices = self._part(split)
        for start in range(0, len(indices), batch_size):
            rows = indices[start : start + batch_size]
            arranged = self._preprocess.arrange(examples.take(rows))
            yield self._batch(arranged, examples.y[rows])

    def epoch(
        self, seed: int, epoch: int, batch_size: int, shard: tuple[int, int] = (0, 1)
    ) -> Iterator[Batch]:
        """Yield one epoch of `train`: shuffled and augmented by (seed, epoch, position) alone."""
        examples, indices = self._part("train")
        draws = Draws.of(seed, epoch, len(indices), self.shift)
        rank, world = shard
        share = np.arange(rank, len(indices) // world * world, world)
        for step in range(self.steps(batch_size, world)):
            at = share[step * batch_size : (step + 1) * batch_size]
            rows = indices[draws.order[at]]
            arranged = self._preprocess.arrange(examples.take(rows))
            changed = augment(arranged, self.augment, self.shift, draws, at)
            yield self._batch(changed, examples.y[rows])

    def loss(self, outputs: Tensor, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
        """Return the mean cross-entropy of logits (n, classes), as a scalar tensor."""
        import torch
        from torch.nn import functional as F

        targets = torch.as_tensor(batch.targets, device=outputs.device)
        return F.cross_entropy(outputs, targets, label_smoothing=label_smoothing)

    def score(self, outputs: Arrays, batch: Batch) -> np.ndarray:
        """Return 1.0 where the largest logit is the target's, else 0.0, shape (n,).

        Raises:
            ModelError: the first output is not of shape (n, classes).
        """
        logits = next(iter(outputs.values()))
        if logits.shape != (len(batch), self.data.classes):
            raise ModelError(
                f"a classifier's first output is expected to have shape"
                f" {[len(batch), self.data.classes]} (examples, classes), got {list(logits.shape)}"
            )
        sound = ~np.isnan(logits).any(axis=1)  # argmax would call the first NaN the largest
        return np.asarray((logits.argmax(axis=1) == batch.targets) & sound, dtype=np.float64)

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

    def _part(self, split: Split) -> tuple[Examples, np.ndarray]:
        if split == "test" and self.data.test is not None:
            return self.data.test, np.arange(len(self.data.test))
        if split not in self._splits:
            raise KnobError(f"a split is one of {', '.join(SPLITS)}, got `{split}`")
        return self.data.pool, self._splits[split]

    def _batch(self, arranged: np.ndarray, y: np.ndarray) -> Batch:
        if arranged.dtype.names:
            return Batch(unpack(arranged), y)
        return Batch({INPUT: self._preprocess.normalise(arranged)}, y)

    def _carve(self) -> dict[Split, np.ndarray]:
        distinct = np.setdiff1d(self._digests, self._own_test)
        counts = default_counts(len(distinct), self.data.test is not None)
        for name in counts:
            counts[name] = getattr(self.options, name) or counts[name]
        if self.data.test is not None:
            del counts["test"]
        splits = carve(self.data.pool.y, self._digests, counts, self._own_test, self.seed)
        if not len(splits["train"]):
            raise DataError("no example is left to train with; ask for smaller splits")
        return splits

    def _check(self) -> None:
        seen = len(np.unique(self.data.pool.y))
        if len(self.data.pool) < FEWEST or seen < 2 or self.data.classes < 2:
            raise DataError(
                f"at least {FEWEST} examples of at least 2 classes were expected, got"
                f" {len(self.data.pool)} of {seen}"
            )
        if self.augment != "none" and len(self.data.pool.shape) != 3:
            raise KnobError(
                f"`augment={self.augment}` shifts images of three axes; these examples have shape"
                f" {list(self.data.pool.shape)}: use `augment=none`"
            )
