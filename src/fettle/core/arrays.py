"""The types that cross from one room to the next: named numpy arrays, batch first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fettle.core.errors import InputError

Arrays = Mapping[str, np.ndarray]
Split = Literal["train", "calibrate", "select", "test"]
SPLITS: tuple[Split, ...] = ("train", "calibrate", "select", "test")


@dataclass(frozen=True)
class Batch:
    """Inputs by name, each of shape (n, …), and one target an example, of shape (n, …)."""

    inputs: Arrays
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True)
class TensorSpec:
    """Name, type and shape of one input or output; -1 stands for a dimension that is free."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}

    def check(self, array: np.ndarray) -> None:
        """Raise InputError unless `array` has this type and shape."""
        fits = array.ndim == len(self.shape) and all(
            want in (-1, got) for want, got in zip(self.shape, array.shape, strict=False)
        )
        if not fits or array.dtype != np.dtype(self.dtype):
            raise InputError(
                f"input `{self.name}` expects {self.dtype} of shape {list(self.shape)}"
                f" (-1 is free), got {array.dtype} of shape {list(array.shape)}"
            )


def rows(arrays: Arrays, start: int, stop: int) -> dict[str, np.ndarray]:
    """Return rows `start` to `stop` of every array."""
    return {name: array[start:stop] for name, array in arrays.items()}


def repeat_to(arrays: Arrays, n: int) -> dict[str, np.ndarray]:
    """Return exactly `n` rows of every array, repeating them when there are fewer."""
    return {name: np.resize(array, (n, *array.shape[1:])) for name, array in arrays.items()}
