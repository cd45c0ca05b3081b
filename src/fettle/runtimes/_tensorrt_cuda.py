"""The little of CUDA that an engine needs: a device, memory, a stream, events, a graph.

Through the driver's own library, which is wherever a GPU can be used and needs no package. The
functions are named as in NVIDIA's "CUDA Driver API".
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from fettle.core.errors import FettleError

_LIBRARY = "libcuda.so.1"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_…
_NON_BLOCKING, _THREAD_LOCAL = 1, 1  # CU_STREAM_NON_BLOCKING, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL


class CudaError(FettleError):
    """A call of the CUDA driver failed."""


@dataclass(frozen=True)
class Gpu:
    """What a device is called, and its compute capability, as in "9.0"."""

    name: str
    capability: str


class Cuda:
    """The first CUDA device, in its primary context, which TensorRT uses too."""

    def __init__(self, library: Any = None) -> None:
        """Open the device.

        Args:
            library: the driver, another than this machine's in tests.

        Raises:
            CudaError: there is no driver, or no device.
        """
        self._library = driver() if library is None else library
        self("cuInit", 0)
        count = ctypes.c_int()
        self("cuDeviceGetCount", ctypes.byref(count))
        if not count.value:
            raise CudaError("the CUDA driver knows no device")
        self._device, self._context = ctypes.c_int(), ctypes.c_void_p()
        self("cuDeviceGet", ctypes.byref(self._device), 0)

    def __call__(self, function: str, *arguments: Any) -> None:
        """Call the driver.

        Raises:
            CudaError: it reports a fault.
        """
        status = getattr(self._library, function)(*arguments)
        if status:
            raise CudaError(f"{function} failed with CUDA error {status}")

    def gpu(self) -> Gpu:
        """Return what the device is."""
        name = ctypes.create_string_buffer(256)
        self("cuDeviceGetName", name, 256, self._device)
        numbers = (str(self._attribute(which)) for which in (_MAJOR, _MINOR))
        return Gpu(name.value.decode(), ".".join(numbers))

    def use(self) -> None:
        """Make the device's context this thread's own."""
        if not self._context:
            self("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), self._device)
        self("cuCtxSetCurrent", self._context)

    def release(self) -> None:
        """Give the context back."""
        if self._context:
            self("cuDevicePrimaryCtxRelease_v2", self._device)
            self._context = ctypes.c_void_p()

    def _attribute(self, which: int) -> int:
        value = ctypes.c_int()
        self("cuDeviceGetAttribute", ctypes.byref(value), which, self._device)
        return value.value


def driver() -> Any:
    """Return the driver's library.

    Raises:
        CudaError: this machine has none.
    """
    try:
        return ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise CudaError(f"no CUDA driver ({_LIBRARY} can't be loaded)") from error


class Buffer:
    """Memory on the device, with as much that is pinned on the host, as an array of bytes."""

    def __init__(self, cuda: Cuda, size: int) -> None:
        self._cuda = cuda
        self._device, self._pinned = ctypes.c_uint64(), ctypes.c_void_p()
        cuda("cuMemAlloc_v2", ctypes.byref(self._device), ctypes.c_size_t(size))
        cuda("cuMemAllocHost_v2", ctypes.byref(self._pinned), ctypes.c_size_t(size))
        pointer = ctypes.cast(self._pinned, ctypes.POINTER(ctypes.c_uint8))
        self.host = np.ctypeslib.as_array(pointer, (size,))

    @property
    def address(self) -> int:
        """Where it is on the device."""
        return self._device.value

    def upload(self, size: int, stream: ctypes.c_void_p) -> None:
        """Let the stream copy the first `size` bytes to the device."""
        self._cuda("cuMemcpyHtoDAsync_v2", self._device, self._pinned, _size(size), stream)

    def download(self, size: int, stream: ctypes.c_void_p) -> None:
        """Let the stream copy the first `size` bytes from the device."""
        self._cuda("cuMemcpyDtoHAsync_v2", self._pinned, self._device, _size(size), stream)

    def free(self) -> None:
        """Give the memory back."""
        self._cuda("cuMemFree_v2", self._device)
        self._cuda("cuMemFreeHost", self._pinned)


class Stream:
    """A stream of its own, that no other work of the process waits for."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda, self.handle = cuda, ctypes.c_void_p()
        cuda("cuStreamCreate", ctypes.byref(self.handle), _NON_BLOCKING)

    def wait(self) -> None:
        """Wait until all that was given to it is done."""
        self._cuda("cuStreamSynchronize", self.handle)

    @contextmanager
    def capture(self) -> Iterator[Graph]:
        """Yield a graph that holds, once the block ends, what the block gave to the stream."""
        graph = Graph(self._cuda, self)
        self._cuda("cuStreamBeginCapture_v2", self.handle, _THREAD_LOCAL)
        raw = ctypes.c_void_p()
        try:
            yield graph
        finally:
            self._cuda("cuStreamEndCapture", self.handle, ctypes.byref(raw))
        graph.hold(raw)

    def free(self) -> None:
        """Destroy it."""
        self._cuda("cuStreamDestroy_v2", self.handle)


class Graph:
    """Work that was captured, to be launched as one."""

    def __init__(self, cuda: Cuda, stream: Stream) -> None:
        self._cuda, self._stream, self._graph = cuda, stream, ctypes.c_void_p()

    def hold(self, raw: ctypes.c_void_p) -> None:
        """Make it ready to launch."""
        flags = ctypes.c_uint64(0)
        self._cuda("cuGraphInstantiateWithFlags", ctypes.byref(self._graph), raw, flags)
        self._cuda("cuGraphDestroy", raw)

    def launch(self) -> None:
        """Give it to its stream."""
        self._cuda("cuGraphLaunch", self._graph, self._stream.handle)

    def free(self) -> None:
        """Destroy it."""
        self._cuda("cuGraphExecDestroy", self._graph)


class Timer:
    """Two events around a piece of work of a stream."""

    def __init__(self, cuda: Cuda, stream: Stream) -> None:
        self._cuda, self._stream = cuda, stream
        self._events = (ctypes.c_void_p(), ctypes.c_void_p())
        for event in self._events:
            cuda("cuEventCreate", ctypes.byref(event), 0)

    def start(self) -> None:
        """Mark the beginning."""
        self._cuda("cuEventRecord", self._events[0], self._stream.handle)

    def stop(self) -> None:
        """Mark the end."""
        self._cuda("cuEventRecord", self._events[1], self._stream.handle)

    def milliseconds(self) -> float:
        """Wait for the end and return the time between, which has a resolution of half a µs."""
        found = ctypes.c_float()
        self._cuda("cuEventSynchronize", self._events[1])
        self._cuda("cuEventElapsedTime", ctypes.byref(found), *self._events)
        return found.value

    def free(self) -> None:
        """Destroy the events."""
        for event in self._events:
            self._cuda("cuEventDestroy_v2", event)


def _size(size: int) -> ctypes.c_size_t:
    return ctypes.c_size_t(size)
