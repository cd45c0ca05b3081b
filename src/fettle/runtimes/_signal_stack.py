"""Keeping this thread's signal stack out of an engine's hands.

Where a processor has AMX, OpenVINO installs a signal stack of its own when it compiles a model, and
puts the one before back when the model is dropped. With two models dropped in the order in which
they came, that is the freed stack of the first: the next Ctrl-C would be a segmentation fault.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator


class _Stack(ctypes.Structure):
    """`stack_t` of sigaltstack(2) on Linux."""

    _fields_ = (
        ("address", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("size", ctypes.c_size_t),
    )


@contextlib.contextmanager
def kept_signal_stack() -> Iterator[None]:
    """Give this thread the signal stack back that it had before the block."""
    if sys.platform != "linux":
        yield
        return
    library, before = ctypes.CDLL(None), _Stack()
    library.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        library.sigaltstack(ctypes.byref(before), None)
