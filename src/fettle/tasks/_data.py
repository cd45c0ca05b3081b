"""What a data source hands over: examples, how they become inputs, and what suits them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np

from fettle.core.arrays import Split

Layout = Literal["nchw", "nhwc", "any"]


class Examples(Protocol):
    """Examples that may live in memory or on disk."""

    @property
    def y(self) -> np.ndarray:
        """Label of each example.

        A class (n,) int64; a value (n,) or several (n, k), float64; none at all (n, 0).
        """

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one raw example."""

    def __len__(self) -> int: ...

    def take(self, indices: np.ndarray) -> np.ndarray:
        """Return raw examples, shape (len(indices), *shape): uint8, float32 or structured."""

    def digests(self) -> np.ndarray:
        """Return a hash of each example's content, uint64, shape (n,)."""


@dataclass(frozen=True)
class ArrayExamples:
    """Examples in memory: `x` (n, …) uint8, float32 or structured (`_named`), `y` as above."""

    x: np.ndarray
    y: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one raw example."""
        return tuple(self.x.shape[1:])

    def __len__(self) -> int:
        return len(self.y)

    def take(self, indices: np.ndarray) -> np.ndarray:
        """Return raw examples, shape (len(indices), *shape)."""
        return np.asarray(self.x[indices])

    def digests(self) -> np.ndarray:
        """Return a hash of each example's content, uint64, shape (n,)."""
        return np.array([digest(row.tobytes()) for row in self.x], dtype=np.uint64)


@dataclass(frozen=True)
class Relabelled:
    """Examples with other labels than their own."""

    examples: Examples
    y: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one raw example."""
        return self.examples.shape

    def __len__(self) -> int:
        return len(self.examples)

    def take(self, indices: np.ndarray) -> np.ndarray:
        """Return raw examples, shape (len(indices), *shape)."""
        return self.examples.take(indices)

    def digests(self) -> np.ndarray:
        """Return a hash of each example's content, uint64, shape (n,)."""
        return self.examples.digests()


def no_labels(n: int) -> np.ndarray:
    """Return what stands for the labels of `n` examples that have none, shape (n, 0)."""
    return np.zeros((n, 0), np.float32)


def digest(content: bytes) -> int:
    """Return a 64-bit hash of `content`."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


@dataclass(frozen=True)
class Preprocessing:
    """How raw values become a model's float32 input: `(raw · scale − mean) / std`, by channel.

    Attributes:
        layout: the order of the raw axes; `nhwc` is turned into `nchw`, `any` is left alone.
        scale: what raw values are multiplied with first.
        mean: one number a channel, or none.
        std: one number a channel, or none.
    """

    layout: Layout = "any"
    scale: float = 1.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def arrange(self, raw: np.ndarray) -> np.ndarray:
        """Return a view of `raw` with its channels first."""
        return raw.transpose(0, 3, 1, 2) if self.layout == "nhwc" else raw

    def normalise(self, arranged: np.ndarray) -> np.ndarray:
        """Return `arranged` (n, c, …) as float32, scaled and normalised."""
        axes = (-1, *(1,) * (arranged.ndim - 2))
        std = np.array(self.std or (1.0,), np.float64).reshape(axes)
        mean = np.array(self.mean or (0.0,), np.float64).reshape(axes)
        out = np.ascontiguousarray(arranged, dtype=np.float32)
        if self.scale == 1.0 and not self.mean and not self.std:
            return out
        factor, offset = (self.scale / std), (mean / std)
        return out * factor.astype(np.float32) - offset.astype(np.float32)

    def to_json(self) -> Mapping[str, Any]:
        """Return the JSON form, for the bundle."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}


@dataclass(frozen=True)
class Data:
    """A data source, read.

    `pool` is what splits are carved from; `test` is the source's own test set, if it has one, and
    `select` its own set to choose with.
    `classes` is 0 where the labels are no classes. `pairs` says that each example is two things
    whose likeness is the label: raw ones have shape (2, …), or `learn` makes them so. `variable`
    says that each batch is only as long as its longest example, as the mask has it.
    `augment` and `shift` (pixels) are what suits training on it. `vocabulary` is how many token
    ids there are, where inputs are integers. `learn` makes of this data what the model gets, where
    that has to be learned first: it is given the indices of the pool's `train` split, and with
    `apart=True` it makes of each pair two examples for the model in place of one; it must leave
    order, labels and contents as they are.
    """

    pool: Examples
    classes: int
    test: Examples | None = None
    preprocessing: Preprocessing = Preprocessing()
    labels: tuple[str, ...] = ()
    augment: str = "none"
    shift: int = 0
    vocabulary: int = 0
    learn: Callable[..., Data] | None = None
    pairs: bool = False
    variable: bool = False
    select: Examples | None = None

    @property
    def own_sets(self) -> dict[Split, Examples]:
        """The sets that the source brings beside the pool."""
        sets: dict[Split, Examples | None] = {"test": self.test, "select": self.select}
        return {split: own for split, own in sets.items() if own is not None}

    def relabelled(self, y: Callable[[Examples, Split | None], np.ndarray]) -> Data:
        """Return the data with the labels that `y` gives for the pool (None) and each own set."""
        own = {split: Relabelled(part, y(part, split)) for split, part in self.own_sets.items()}
        pool = Relabelled(self.pool, y(self.pool, None))
        return replace(self, pool=pool, test=own.get("test"), select=own.get("select"))

    @property
    def labelled(self) -> bool:
        """Whether the examples have labels at all."""
        return self.pool.y.ndim == 1 or self.pool.y.shape[1] > 0
