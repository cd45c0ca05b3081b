"""`cifar10:DIR`: 60,000 colour images of 32×32 pixels in ten classes.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.

Two layouts are read: torchvision's (`DIR/cifar-10-batches-py`, or that folder itself), and lossless
WebP mosaics of 100×100 images a file (`train_0.webp` … `train_4.webp`, `test.webp`, and the labels
`train` and `test` in `labels.npz`). The normalisation is that of the published ResNets.

Networks that were trained by others have mostly seen all training images, know them by heart, and
seem to lose more than they do when images among these choose what is done to them. Then take some
of the official test images to choose with: `cifar10:DIR?held_out=2000`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np

from fettle.core.errors import DataError
from fettle.core.knobs import Range
from fettle.tasks._arrays import data_of
from fettle.tasks._data import ArrayExamples, Data
from fettle.tasks._source import DataSource
from fettle.tasks._split import carve
from fettle.tasks.sources._pickled import images_and_labels
from fettle.tasks.sources.npz import read_archive

NORMALISE = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
LABELS = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
SIDE, GRID = 32, 100
_Pair = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Cifar10(DataSource):
    """CIFAR-10, from the folder of torchvision or from WebP mosaics."""

    held_out: Annotated[
        int, Range(0, 9000, "images"), "of the test set, to choose with in place of training images"
    ] = 0

    def read(self) -> Data:
        """Return 50,000 images to train with and 10,000 of its own test set."""
        data = read_cifar10(Path(self._need_where("the folder of CIFAR-10")))
        return _held_out(data, self.held_out) if self.held_out else data


def _held_out(data: Data, count: int) -> Data:
    """Return the data with `count` images of its test set to choose with, the others to test."""
    assert data.test is not None
    test = data.test
    parts = carve(test.y, test.digests(), {"select": count}, np.array([], np.uint64), seed=0)
    select, rest = (
        ArrayExamples(test.take(parts[s]), test.y[parts[s]]) for s in ("select", "train")
    )
    return replace(data, select=select, test=rest)


def read_cifar10(folder: Path) -> Data:
    """Return CIFAR-10 as found in `folder`.

    Raises:
        DataError: neither layout is there, or a file is damaged.
    """
    for batches in (folder / "cifar-10-batches-py", folder):
        if (batches / "data_batch_1").is_file():
            train = [batches / f"data_batch_{i}" for i in range(1, 6)]
            pairs = [images_and_labels(p, "labels") for p in (train, [batches / "test_batch"])]
            return _data(pairs[0], pairs[1], "nchw")
    if (folder / "labels.npz").is_file():
        return _data(*_mosaics(folder), "nhwc")
    raise DataError(
        f"CIFAR-10 was expected in `{folder}`, as `cifar-10-batches-py` or as `labels.npz` with"
        " WebP mosaics; get it with `torchvision:CIFAR10` and `download=True`"
    )


def _data(train: _Pair, test: _Pair, layout: str) -> Data:
    data = data_of(*train, test, layout=layout, labels=LABELS, normalise=NORMALISE)
    return replace(data, augment="shift-flip", shift=4)


def _mosaics(folder: Path) -> tuple[_Pair, _Pair]:
    y = read_archive(folder / "labels.npz")
    if len(y) != 2:
        raise DataError(f"`{folder / 'labels.npz'}` is expected to hold `train` and `test`")
    train = np.concatenate([read_mosaic(folder / f"train_{i}.webp") for i in range(5)])
    return (train, y["train"]), (read_mosaic(folder / "test.webp"), y["test"])


def read_mosaic(path: Path) -> np.ndarray:
    """Return the 10,000 images of a mosaic, (10000, 32, 32, 3), uint8, row by row.

    Raises:
        DataError: the file is missing, truncated, or of another size.
    """
    from PIL import Image

    whole = (GRID * SIDE, GRID * SIDE)
    try:
        with Image.open(path) as image:
            if image.size != whole or image.mode != "RGB":
                raise DataError(f"`{path}` expects {whole} RGB, got {image.size} {image.mode}")
            pixels = np.asarray(image)
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"`{path}` is no sound WebP mosaic ({error}); get it anew") from error
    tiles = pixels.reshape(GRID, SIDE, GRID, SIDE, 3).transpose(0, 2, 1, 3, 4)
    return tiles.reshape(-1, SIDE, SIDE, 3)
