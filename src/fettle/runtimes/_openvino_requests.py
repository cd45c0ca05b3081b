"""Requests of a compiled model: as many as there are runs at once, each used by one at a time."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from fettle.core.errors import InputError
from fettle.runtimes._signal_stack import kept_signal_stack


class Requests:
    """The requests of one compiled model.

    OpenVINO's own call looks at each input through layers of Python; handing it tensors takes less
    time than its default.
    """

    def __init__(self, compiled: Any) -> None:
        from openvino import Tensor

        self._tensor = Tensor
        self._compiled, self._idle = compiled, list[Any]()
        self._lock = threading.Lock()

    def compiled(self) -> Any:
        """Return the compiled model.

        Raises:
            InputError: it was dropped.
        """
        compiled = self._compiled
        if compiled is None:
            raise InputError("this session was closed: build the model anew")
        return compiled

    def run(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """Return the outputs, which are the caller's own."""
        compiled = self.compiled()
        try:
            request = self._idle.pop()
        except IndexError:
            request = compiled.create_infer_request()
        shared = [_shareable(array) for array in arrays]
        for index, array in enumerate(shared):
            request.set_input_tensor(index, self._tensor(array, shared_memory=True))
        found = list(request.infer().values())
        with self._lock:
            if self._compiled is not None:
                self._idle.append(request)
                return found
        with kept_signal_stack():  # this was the last run of a closed session
            del request, compiled
        return found

    def close(self) -> None:
        """Drop the model and the idle requests."""
        with kept_signal_stack(), self._lock:
            self._idle.clear()
            self._compiled = None


def _shareable(array: np.ndarray) -> np.ndarray:
    """Return the array itself if an engine may read it as it lies, else a copy."""
    flags = array.flags
    return array if flags.c_contiguous and flags.writeable else np.array(array, order="C")
