"""`imagefolder:DIR`: one folder a class, with images in it; they are decoded when they are needed.

`DIR/class/*.jpg`, or `DIR/train/class/*.jpg` with `DIR/test/…` or `DIR/val/…` as the test set.
Images without folders of classes have no labels: `DIR/*.jpg`.
Images are resized so that the shorter side is `size / crop`, and the central square is cut out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np

from fettle.core.errors import DataError
from fettle.core.knobs import Range, Text
from fettle.tasks._data import Data, Preprocessing, digest, no_labels
from fettle.tasks._source import DataSource, numbers

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")


@dataclass(frozen=True, kw_only=True)
class ImageFolder(DataSource):
    """Images in one folder a class. Mean and standard deviation are ImageNet's."""

    size: Annotated[int, Range(8, 1024, "pixels"), "side of the square that a model sees"] = 224
    crop: Annotated[float, Range(0.5, 1), "that side, as a part of the shorter side"] = 0.875
    mean: Annotated[str, Text("numbers"), "of red, green and blue, in 0 … 1"] = "0.485,0.456,0.406"
    std: Annotated[str, Text("numbers"), "of red, green and blue, in 0 … 1"] = "0.229,0.224,0.225"

    def read(self) -> Data:
        """Return the images' paths; pixels are read later."""
        root = Path(self._need_where("a folder"))
        train, test = _parts(root)
        labels = tuple(folder.name for folder in _folders(train))
        if not labels and not _images(train):
            raise DataError(
                f"one folder a class was expected in `{train}`, or images without labels, but it"
                " has none"
            )
        mean, std = (numbers("imagefolder", k, getattr(self, k)) for k in ("mean", "std"))
        if (len(mean), len(std)) != (3, 3):
            raise DataError(f"`mean` and `std` expect 3 numbers each, got {mean} and {std}")
        return Data(
            self._examples(train, labels),
            len(labels),
            self._examples(test, labels) if test else None,
            Preprocessing("nhwc", 1 / 255, mean, std),
            labels,
            augment="shift-flip",
        )

    def _examples(self, folder: Path, labels: tuple[str, ...]) -> ImageFiles:
        if not labels:
            found = _images(folder)
            return ImageFiles(tuple(found), no_labels(len(found)), self.size, self.crop)
        paths, y = [], []
        for each in _folders(folder):
            if each.name not in labels:
                raise DataError(f"`{each}` is a class that the training images lack: {labels[:9]}")
            files = _images(each)
            paths += files
            y += [labels.index(each.name)] * len(files)
        if not paths:
            raise DataError(f"images ({', '.join(SUFFIXES)}) were expected in `{folder}/*`")
        return ImageFiles(tuple(paths), np.array(y, np.int64), self.size, self.crop)


@dataclass(frozen=True)
class ImageFiles:
    """Image files, decoded when they are taken."""

    paths: Sequence[Path]
    y: np.ndarray
    size: int
    crop: float

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one raw example."""
        return (self.size, self.size, 3)

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, indices: np.ndarray) -> np.ndarray:
        """Return images (len(indices), size, size, 3), uint8.

        Raises:
            DataError: a file is truncated or no image.
        """
        return np.stack([self._decode(self.paths[i]) for i in indices])

    def digests(self) -> np.ndarray:
        """Return a hash of each file's bytes, uint64, shape (n,)."""
        return np.array([digest(path.read_bytes()) for path in self.paths], np.uint64)

    def _decode(self, path: Path) -> np.ndarray:
        from PIL import Image, ImageOps

        side = round(self.size / self.crop)
        try:
            with Image.open(path) as image:
                square = ImageOps.fit(image.convert("RGB"), (side, side), Image.Resampling.BILINEAR)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError(f"`{path}` is no sound image ({error}); mend or remove it") from error
        edge = (side - self.size) // 2
        return np.asarray(square.crop((edge, edge, edge + self.size, edge + self.size)))


def _parts(root: Path) -> tuple[Path, Path | None]:
    if not root.is_dir():
        raise DataError(f"a folder of images was expected at `{root}`, but there is none")
    train = root / "train"
    if not (train.is_dir() and (_folders(train) or _images(train))):
        return root, None
    tests = [root / name for name in ("test", "val") if (root / name).is_dir()]
    return train, next(iter(tests), None)


def _images(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
