"""`digits`: 1,797 handwritten digits of 8×8 pixels that come with scikit-learn; no network.

Alpaydin & Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository.
Pixels are 0 … 16. They are grey, so that a model's input is (n, 1, 8, 8).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fettle.core.errors import KnobError
from fettle.tasks._data import ArrayExamples, Data, Preprocessing
from fettle.tasks._source import DataSource

MEAN, STD = 0.3053, 0.3760  # of all pixels, scaled to 0 … 1


@dataclass(frozen=True, kw_only=True)
class Digits(DataSource):
    """Scikit-learn's digits: the data set that is always here."""

    def read(self) -> Data:
        """Return the images (n, 1, 8, 8), uint8, and their labels."""
        from sklearn.datasets import load_digits

        if self.where:
            raise KnobError(f"`digits` stands alone, got `digits:{self.where}`")
        raw = load_digits()
        images = raw.images.astype(np.uint8)[:, None]  # (1797, 1, 8, 8)
        return Data(
            ArrayExamples(images, raw.target.astype(np.int64)),
            classes=10,
            preprocessing=Preprocessing("nchw", 1 / 16, (MEAN,), (STD,)),
            labels=tuple("0123456789"),
            augment="shift",
            shift=1,
        )
