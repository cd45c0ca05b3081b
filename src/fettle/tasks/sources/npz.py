"""`npz:FILE`: arrays in a NumPy archive; pickled objects in it are refused.

The archive holds `x` and `y`, or `x_train`, `y_train`, `x_test` and `y_test`. Integers in `x` are
images of 0 … 255, shape (n, h, w), (n, h, w, c) or (n, c, h, w): the channels are the axis of 1, 3
or 4, and the last one where both would do; the knob `layout` says otherwise. Floats are taken as
they are, in any shape.

Without `x`, the archive holds several inputs by name, such as `input_ids`, `attention_mask` and `y`
(with `_train` and `_test` behind each, where there are two sets). Integers among them are token
ids, masks and the like, padded to one length; they go into the model as they are, in the
archive's order. The knob `vocabulary` says how many ids there are.

`y` may hold classes (whole numbers), values to predict (floats, (n,) or (n, k)), or be absent: then
a model is judged by how well it keeps to what the original says.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from fettle.core.errors import DataError
from fettle.core.knobs import Choice, Range, Text
from fettle.tasks._arrays import data_of
from fettle.tasks._data import Data
from fettle.tasks._named import named_data
from fettle.tasks._source import DataSource, numbers

_NAMES = ("x", "y", "x_train", "y_train", "x_test", "y_test")
_LABELS = {"y", "y_train", "y_test"}
_Pair = tuple[np.ndarray, np.ndarray | None]
_IDS = "input_ids"  # a sole input of this name holds tokens
_DAMAGE = (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, kw_only=True)
class Npz(DataSource):
    """Arrays in a NumPy archive."""

    layout: Annotated[str, Choice("auto", "nhwc", "nchw"), "order of the axes of images"] = "auto"
    classes: Annotated[int, Range(0, 1e6), "number of classes; 0: what the labels show"] = 0
    vocabulary: Annotated[int, Range(0, 2**31), "number of token ids; 0: what the ids show"] = 0
    mean: Annotated[str, Text("numbers"), "of each channel, after scaling to 0 … 1"] = "0.5"
    std: Annotated[str, Text("numbers"), "of each channel, after scaling to 0 … 1"] = "0.5"

    def read(self) -> Data:
        """Return the arrays, found to be sound."""
        path = Path(self._need_where("the path of an archive"))
        arrays = _called_x(read_archive(path))
        if named := _named(arrays):
            return named_data(*named, classes=self.classes or None, vocabulary=self.vocabulary)
        train, test = _pairs(arrays, path)
        mean, std = (numbers("npz", k, getattr(self, k)) or (0.5,) for k in ("mean", "std"))
        return data_of(
            *train,
            test,
            classes=self.classes or None,
            layout=self.layout,
            normalise=(mean, std),
        )


def read_archive(path: Path) -> dict[str, np.ndarray]:
    """Return what the archive at `path` holds, by name.

    Raises:
        DataError: the file is missing, truncated, no archive, or holds pickled objects.
    """
    if not path.is_file():
        raise DataError(f"an .npz archive was expected at `{path}`, but there is none")
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except _DAMAGE as error:
        raise DataError(
            f"`{path}` is no sound .npz archive of plain arrays ({error}); write it with"
            " `numpy.savez`, without objects"
        ) from error


def _called_x(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays, a sole one under the name `x`, unless it holds tokens."""
    alone = len(arrays) == 1 and not {_IDS, *_NAMES} & arrays.keys()
    return {"x": next(iter(arrays.values()))} if alone else arrays


def _pairs(arrays: Mapping[str, np.ndarray], path: Path) -> tuple[_Pair, _Pair | None]:
    """Return `x` and `y` of the pool, and of its own test set if there is one."""
    whole, train, test = (_plain(arrays, suffix) for suffix in ("", "_train", "_test"))
    if whole is not None and "y_train" not in arrays:
        return whole, None
    if train is not None and test is not None:
        return train, test
    raise DataError(
        f"`{path}` is expected to hold `x` and `y`, or {', '.join(f'`{n}`' for n in _NAMES[2:])},"
        f" or several inputs by name such as `input_ids`, `attention_mask` and `y`, or inputs"
        f" without any labels; of these it has {sorted(arrays.keys() & set(_NAMES)) or 'none'}"
    )


def _plain(arrays: Mapping[str, np.ndarray], suffix: str) -> _Pair | None:
    """Return `x` and `y` with this suffix; `y` is None where no part of the archive has labels."""
    if f"x{suffix}" not in arrays:
        return None
    if f"y{suffix}" in arrays:
        return arrays[f"x{suffix}"], arrays[f"y{suffix}"]
    return None if _LABELS & arrays.keys() else (arrays[f"x{suffix}"], None)


def _named(arrays: Mapping[str, np.ndarray]) -> tuple[Any, ...] | None:
    """Return inputs by name and labels, for both sets where there are two; None: there are none."""
    if {"x", "x_train"} & arrays.keys():
        return None
    if not _LABELS & arrays.keys():
        return (dict(arrays), None) if _alike_in_length(arrays) else None
    whole, train, test = (_part(arrays, suffix) for suffix in ("", "_train", "_test"))
    if whole is not None and train is None:
        return whole
    if train is None or test is None:
        return None
    return (*train, test)


def _alike_in_length(arrays: Mapping[str, np.ndarray]) -> bool:
    """Say whether these can be the inputs of the same examples."""
    lengths = {len(array) if array.ndim > 1 else -1 for array in arrays.values()}
    return len(lengths) == 1 and -1 not in lengths


def _part(
    arrays: Mapping[str, np.ndarray], suffix: str
) -> tuple[dict[str, np.ndarray], np.ndarray] | None:
    labels = f"y{suffix}"
    if labels not in arrays:
        return None
    inputs = {
        name.removesuffix(suffix): array
        for name, array in arrays.items()
        if name.endswith(suffix) and name != labels
    }
    return (inputs, arrays[labels]) if len(inputs) > 1 or _IDS in inputs else None
