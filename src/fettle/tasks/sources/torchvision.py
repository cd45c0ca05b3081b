"""`torchvision:NAME`: MNIST, FashionMNIST, CIFAR10 and CIFAR100, from the files of torchvision.

They are read without torchvision; only `download=True` needs it.
"""

from __future__ import annotations

import gzip
import importlib
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np

from fettle.core.errors import DataError, MissingError, UnknownName
from fettle.core.knobs import Choice, Text
from fettle.core.shelf import INSTALL
from fettle.tasks._arrays import data_of
from fettle.tasks._data import Data
from fettle.tasks._source import DataSource
from fettle.tasks.sources._pickled import images_and_labels
from fettle.tasks.sources.cifar10 import read_cifar10

NAMES = ("CIFAR10", "CIFAR100", "FashionMNIST", "MNIST")
GREY = {"MNIST": (0.1307, 0.3081), "FashionMNIST": (0.2860, 0.3530)}
CIFAR100 = ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))
_UBYTE = 8  # the type code of unsigned bytes in IDX files


@dataclass(frozen=True, kw_only=True)
class Torchvision(DataSource):
    """A data set in the files that torchvision keeps."""

    root: Annotated[str, Text("a folder"), "where torchvision keeps its data sets"] = "data"
    download: Annotated[bool, Choice(False, True), "fetch what is not there, with torchvision"] = (
        False
    )

    def read(self) -> Data:
        """Return the data set, its own test set apart."""
        name, root = self._need_where("the name of a data set"), Path(self.root)
        if name not in NAMES:
            raise UnknownName(
                "data set", f"torchvision:{name}", [f"torchvision:{n}" for n in NAMES]
            )
        if self.download:
            fetch(name, root)
        try:
            return _read(name, root)
        except DataError as error:
            if self.download:
                raise
            raise DataError(
                f"{error}; `torchvision:{name}` looks in `root={self.root}`: name another folder,"
                " or fetch it with `download=True`"
            ) from error


def fetch(name: str, root: Path) -> None:
    """Let torchvision download the data set called `name` to `root`.

    Raises:
        MissingError: torchvision is not installed, or doesn't fit the torch that is.
        DataError: the download failed.
    """
    try:
        datasets = importlib.import_module("torchvision.datasets")
    except (ImportError, RuntimeError) as error:
        raise MissingError(
            f"downloading needs a torchvision that fits your torch ({error})",
            INSTALL["torchvision"],
        ) from error
    try:
        getattr(datasets, name)(str(root), download=True)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"`{name}` could not be downloaded ({error}); put its files into `{root}` yourself"
        ) from error


def _read(name: str, root: Path) -> Data:
    if name == "CIFAR10":
        return read_cifar10(root)
    if name == "CIFAR100":
        parts = [root / "cifar-100-python" / part for part in ("train", "test")]
        train, test = (images_and_labels([part], "fine_labels") for part in parts)
        data = data_of(*train, test, classes=100, layout="nchw", normalise=CIFAR100)
        return replace(data, augment="shift-flip", shift=4)
    raw = root / name / "raw"
    pairs = [(read_idx(raw / f"{p}-images-idx3-ubyte"), read_idx(raw / f"{p}-labels-idx1-ubyte"))
             for p in ("train", "t10k")]  # fmt: skip
    mean, std = GREY[name]
    return data_of(*pairs[0], pairs[1], classes=10, normalise=((mean,), (std,)))


def read_idx(path: Path) -> np.ndarray:
    """Return the array in an IDX file of unsigned bytes, plain or with `.gz` after its name.

    Raises:
        DataError: the file is missing, truncated, or of another type.
    """
    content = _content(path)
    axes = content[3] if len(content) >= 4 else 0
    start = 4 + 4 * axes
    if content[:3] != bytes([0, 0, _UBYTE]) or len(content) < start:
        raise DataError(f"`{path}` is no IDX file of unsigned bytes; get it anew")
    shape = tuple(int(n) for n in np.frombuffer(content, ">u4", axes, offset=4))
    values = np.frombuffer(content, np.uint8, offset=start)
    if len(values) != np.prod(shape, dtype=object):
        raise DataError(f"`{path}` promises {shape} values but holds {len(values)}; get it anew")
    return values.reshape(shape)


def _content(path: Path) -> bytes:
    packed = path.with_name(path.name + ".gz")
    try:
        if path.is_file():
            return path.read_bytes()
        if packed.is_file():
            return gzip.decompress(packed.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"`{path}` can't be read ({error}); get it anew") from error
    raise DataError(f"an IDX file was expected at `{path}` (or `.gz`), but there is none")
