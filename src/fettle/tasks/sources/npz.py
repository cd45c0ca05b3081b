"""`npz:FILE`: arrays in a NumPy archive; pickled objects in it are refused.

The archive holds `x` and `y`, or `x_train`, `y_train`, `x_test` and `y_test`. Integers in `x` are
images of 0 … 255, shape (n, h, w), (n, h, w, c) or (n, c, h, w): the channels are the axis of 1, 3
or 4, and the last one where both would do; the knob `layout` says otherwise. Floats are taken as
they are, in any shape.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np

from fettle.core.errors import DataError
from fettle.core.knobs import Choice, Range, Text
from fettle.tasks._arrays import data_of
from fettle.tasks._data import Data
from fettle.tasks._source import DataSource, numbers

_NAMES = ("x", "y", "x_train", "y_train", "x_test", "y_test")
_DAMAGE = (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, kw_only=True)
class Npz(DataSource):
    """Arrays in a NumPy archive."""

    layout: Annotated[str, Choice("auto", "nhwc", "nchw"), "order of the axes of images"] = "auto"
    classes: Annotated[int, Range(0, 1e6), "number of classes; 0: what the labels show"] = 0
    mean: Annotated[str, Text("numbers"), "of each channel, after scaling to 0 … 1"] = "0.5"
    std: Annotated[str, Text("numbers"), "of each channel, after scaling to 0 … 1"] = "0.5"

    def read(self) -> Data:
        """Return the arrays, found to be sound."""
        path = Path(self._need_where("the path of an archive"))
        arrays = read_archive(path, _NAMES)
        train, test = _pairs(arrays, path)
        mean, std = (numbers("npz", k, getattr(self, k)) or (0.5,) for k in ("mean", "std"))
        return data_of(
            *train,
            test,
            classes=self.classes or None,
            layout=self.layout,
            normalise=(mean, std),
        )


def read_archive(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return those of `names` that the archive at `path` holds.

    Raises:
        DataError: the file is missing, truncated, no archive, or holds pickled objects.
    """
    if not path.is_file():
        raise DataError(f"an .npz archive was expected at `{path}`, but there is none")
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return {name: archive[name] for name in names if name in archive.files}
    except _DAMAGE as error:
        raise DataError(
            f"`{path}` is no sound .npz archive of plain arrays ({error}); write it with"
            " `numpy.savez`, without objects"
        ) from error


def _pairs(
    arrays: Mapping[str, np.ndarray], path: Path
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray] | None]:
    if {"x", "y"} <= arrays.keys():
        return (arrays["x"], arrays["y"]), None
    if set(_NAMES[2:]) <= arrays.keys():
        return (arrays["x_train"], arrays["y_train"]), (arrays["x_test"], arrays["y_test"])
    raise DataError(
        f"`{path}` is expected to hold `x` and `y`, or {', '.join(f'`{n}`' for n in _NAMES[2:])};"
        f" of these it has {sorted(arrays) or 'none'}"
    )
