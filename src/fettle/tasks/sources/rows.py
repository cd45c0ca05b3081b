"""`rows:SOURCE`: the images of another source as sequences of their rows, for recurrent models.

`rows:digits` gives 8 steps of 8 values, `rows:torchvision:MNIST` 28 of 28. An image (c, h, w) is h
steps of c · w features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from fettle.core.errors import DataError
from fettle.tasks._data import Data, Preprocessing
from fettle.tasks._source import DataSource


@dataclass(frozen=True)
class RowByRow(Preprocessing):
    """Normalises images, then lays the channels of each row side by side."""

    def normalise(self, arranged: np.ndarray) -> np.ndarray:
        """Return `arranged` (n, c, h, w) as float32 sequences (n, h, c · w)."""
        images = super().normalise(arranged)
        n, channels, height, width = images.shape
        rows = images.transpose(0, 2, 1, 3).reshape(n, height, channels * width)
        return np.ascontiguousarray(rows)

    def to_json(self) -> Mapping[str, Any]:
        """Return the JSON form, for the bundle."""
        return {**super().to_json(), "rows": True}


@dataclass(frozen=True, kw_only=True)
class Rows(DataSource):
    """Images of another source, read row by row."""

    def read(self) -> Data:
        """Return the other source's data, with a preprocessing that makes sequences.

        Raises:
            UnknownName: there is no such source.
            DataError: its examples are no images.
        """
        from fettle.tasks._load import read_source  # it reads through this module, too

        data = read_source(self._need_where("another source of images, as in `rows:digits`"))
        if not isinstance(data, Data) or len(data.pool.shape) != 3:
            raise DataError(f"`rows:{self.where}` expects a source of images, and this is none")
        how = {f.name: getattr(data.preprocessing, f.name) for f in fields(Preprocessing)}
        return replace(data, preprocessing=RowByRow(**how))
