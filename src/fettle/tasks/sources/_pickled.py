"""The batches of CIFAR are pickles: read them without letting them run anything."""

from __future__ import annotations

import codecs
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy._core.multiarray import _reconstruct

from fettle.core.errors import DataError

_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): codecs.encode,
}


class _ArraysOnly(pickle.Unpickler):
    """Makes nothing but numpy arrays and Python's own containers, numbers and text."""

    def find_class(self, module: str, name: str) -> Any:
        """Return an admitted class, or refuse."""
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for `{module}.{name}`, which is not admitted")
        return _ALLOWED[module, name]


def read_batch(path: Path) -> dict[str, Any]:
    """Return the dictionary that is pickled in file `path`.

    Raises:
        DataError: the file is missing, truncated, or holds more than arrays.
    """
    if not path.is_file():
        raise DataError(f"a batch of CIFAR was expected at `{path}`, but there is none")
    try:
        with path.open("rb") as stream:
            found = _ArraysOnly(stream, encoding="bytes").load()
    except Exception as error:  # a broken pickle can raise anything
        raise DataError(f"`{path}` is no batch of CIFAR ({error}); get it anew") from error
    if not isinstance(found, dict):
        raise DataError(f"`{path}` is expected to hold a dictionary, got {type(found).__name__}")
    return {k.decode() if isinstance(k, bytes) else str(k): v for k, v in found.items()}


def images_and_labels(paths: list[Path], label: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the images (n, 3, 32, 32), uint8, and labels (n,) of the batches at `paths`.

    Raises:
        DataError: a batch is missing, damaged, or of another shape.
    """
    batches = [read_batch(path) for path in paths]
    for path, batch in zip(paths, batches, strict=True):
        data: Any = batch.get("data")
        y: Any = batch.get(label)
        sound = isinstance(data, np.ndarray) and isinstance(y, list)
        if not sound or data.dtype != np.uint8 or data.shape != (len(y), 3072):
            raise DataError(f"`{path}` is expected to hold `data` (n, 3072) and n `{label}`")
    x = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32)
    return x, np.concatenate([batch[label] for batch in batches])
