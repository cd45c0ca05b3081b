"""What a data source hands over: examples, how they become inputs, and what suits them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import numpy as np

Layout = Literal["nchw", "nhwc", "any"]


class Examples(Protocol):
    """Labelled examples that may live in memory or on disk."""

    @property
    def y(self) -> np.ndarray:
        """Class of each example, int64, shape (n,)."""

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
    """Examples in memory: `x` (n, …) uint8, float32 or structured (`_named`), `y` (n,) int64."""

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

    `pool` is what splits are carved from; `test` is the source's own test set, if it has one.
    `augment` and `shift` (pixels) are what suits training on it. `vocabulary` is how many token
    ids there are, where inputs are integers. `learn` makes of this data what the model gets, where
    that has to be learned first: it is given the indices of the pool's `train` split, and it must
    leave order, labels and contents as they are.
    """

    pool: Examples
    classes: int
    test: Examples | None = None
    preprocessing: Preprocessing = Preprocessing()
    labels: tuple[str, ...] = ()
    augment: str = "none"
    shift: int = 0
    vocabulary: int = 0
    learn: Callable[[np.ndarray], Data] | None = None
