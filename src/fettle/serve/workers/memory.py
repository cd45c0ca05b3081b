"""Arrays in memory that two processes share: written by the one, read in place by the other.

The memory has no name, so nothing is left behind when a process is killed, and it isn't bounded by
`/dev/shm`, which is 64 MB in a container. It grows with the largest batch; pages are reserved when
it does, for writing to a page that the system can't give kills a process.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from fettle.core.arrays import Arrays, TensorSpec
from fettle.core.errors import StorageError
from fettle.serve.protocol.datatypes import BYTES, NUMPY, name_of
from fettle.serve.protocol.tensors import from_raw, to_raw

_ALIGNED = 64  # bytes: a cache line, and the widest vector register
_SMALLEST = 1 << 16

Placed = list[Any]
"""Where an array lies, as JSON: name, datatype, shape, first byte, number of bytes."""


class SharedMemory:
    """Memory behind a file descriptor, which is closed with it.

    Only the side whose turn it is writes. What `read` returns are views: they hold until the other
    side writes again.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._map: mmap.mmap | None = None
        self._used = 0

    @classmethod
    def create(cls) -> SharedMemory:
        """Return new memory, which only processes share that are handed its descriptor."""
        if hasattr(os, "memfd_create"):
            return cls(os.memfd_create("fettle-worker", os.MFD_CLOEXEC))
        with tempfile.TemporaryFile() as file:
            return cls(os.dup(file.fileno()))

    def write(self, arrays: Arrays, after: int = 0) -> list[Placed]:
        """Copy arrays in, behind the first `after` bytes, and return where they lie.

        Raises:
            StorageError: the system has no memory left for them.
        """
        raws = {name: _raw(array) for name, array in arrays.items()}
        places: list[Placed] = []
        at = after
        for name, raw in raws.items():
            at = -(-at // _ALIGNED) * _ALIGNED
            array = arrays[name]
            places.append([name, name_of(array.dtype), list(array.shape), at, raw.nbytes])
            at += raw.nbytes
        whole = self._whole(at)
        for place, raw in zip(places, raws.values(), strict=True):
            np.copyto(np.ndarray(raw.shape, raw.dtype, whole, place[3]), raw)
        return places

    def read(self, places: Sequence[Placed]) -> dict[str, np.ndarray]:
        """Return the arrays at these places: views, but for texts."""
        whole = self._whole(0)
        return {name: _array(whole, name, *place) for name, *place in places}

    def close(self) -> None:
        """Give the memory back; views of it stay readable until they are gone."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
        self.descriptor, self._map = -1, None

    def _whole(self, size: int) -> mmap.mmap:
        """Return all of the memory, of at least `size` bytes; the other side may have grown it."""
        there = os.fstat(self.descriptor).st_size
        if there < max(size, _SMALLEST):
            there = max(2 * there, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE, _SMALLEST)
            self._reserve(there)
        if self._map is None or len(self._map) < there:
            self._map = mmap.mmap(self.descriptor, there)
        return self._map

    def _reserve(self, size: int) -> None:
        try:
            reserve = getattr(os, "posix_fallocate", None)  # macOS has none
            if reserve is None:
                os.ftruncate(self.descriptor, size)
            else:
                reserve(self.descriptor, 0, size)
        except OSError as error:
            raise StorageError(
                f"{size} bytes of memory were expected for a batch of a worker process, the system"
                f" has none left ({error.strerror}); take a smaller `--max-batch`"
            ) from error


def end_of(places: Sequence[Placed]) -> int:
    """Return the first byte behind the arrays at these places."""
    return max((at + size for *_, at, size in places), default=0)


def _raw(array: np.ndarray) -> np.ndarray:
    """Return what is copied: the array itself, or the bytes of its texts."""
    if name_of(array.dtype) == BYTES:
        return np.frombuffer(to_raw(array), np.uint8)
    return array


def _array(
    whole: mmap.mmap, name: str, datatype: str, shape: list[int], at: int, size: int
) -> np.ndarray:
    if datatype == BYTES:
        spec = TensorSpec(name, "object", tuple(shape))
        return from_raw(spec, shape, whole[at : at + size])
    return np.ndarray(shape, NUMPY[datatype], whole, at)
