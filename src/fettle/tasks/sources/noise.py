"""`noise:3x224x224` or `noise:3x224x224:1000`: random images, for speed alone.

Latency doesn't depend on what is in the image. Quality does: its labels are random too, so a
verdict on it says nothing about accuracy, and the bundle's data fingerprint says `noise`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from fettle.core.errors import DataError
from fettle.core.knobs import Range
from fettle.tasks._data import ArrayExamples, Data, Preprocessing
from fettle.tasks._source import DataSource

_FORM = re.compile(r"(\d+)x(\d+)x(\d+)(?::(\d+))?")
_CLASSES = 1000


@dataclass(frozen=True, kw_only=True)
class Noise(DataSource):
    """Seeded random images with random labels."""

    examples: Annotated[int, Range(64, 100_000, "examples"), "how many to make"] = 160

    def read(self) -> Data:
        """Return images (n, channels, height, width), uint8, and labels.

        Raises:
            DataError: the shape is no `CxHxW` or `CxHxW:CLASSES`.
        """
        match = _FORM.fullmatch(self._need_where("`noise:3x224x224` or `noise:3x224x224:1000`"))
        if not match or "0" in match.groups():
            raise DataError(
                f"`noise:{self.where}` expects channels x height x width, and maybe classes,"
                " as in `noise:3x224x224:1000`"
            )
        channels, height, width = (int(match[i]) for i in (1, 2, 3))
        classes = int(match[4] or _CLASSES)
        rng = np.random.default_rng(0)
        shape = (self.examples, channels, height, width)
        images = rng.integers(0, 256, shape, dtype=np.uint8)
        labels = np.arange(self.examples, dtype=np.int64) % classes
        preprocessing = Preprocessing("nchw", 1 / 255, (0.5,) * channels, (0.25,) * channels)
        return Data(ArrayExamples(images, labels), classes, preprocessing=preprocessing)
