"""Torch's process-wide settings, held while a session runs and given back after."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_lock = threading.Lock()
_held = 0
_before: tuple[int, str, bool] = (1, "highest", False)


@contextmanager
def settings(threads: int, tf32: bool) -> Iterator[None]:
    """Compute with `threads`, and with TF32 or without.

    The number of threads of OpenMP belongs to the calling thread, so sessions with different
    numbers may run at once. TF32 and the threads of MKL belong to the process: of several sessions
    that ask for different ones at once, the last to start wins, and only when all are done comes
    back what was set before the first.
    """
    global _held, _before  # noqa: PLW0603  (as torch's own state is)
    with _lock:
        if _held == 0:
            _before = _now()
        _held += 1
        _set(threads, "high" if tf32 else "highest", tf32)
    try:
        yield
    finally:
        with _lock:
            _held -= 1
            if _held:
                _set(_before[0], *_now()[1:])
            else:
                _set(*_before)


def _now() -> tuple[int, str, bool]:
    return (
        torch.get_num_threads(),
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.allow_tf32,
    )


def _set(threads: int, matmul: str, convolutions: bool) -> None:
    """Change only what differs: each change costs more than a look."""
    now = _now()
    if now[0] != threads:
        torch.set_num_threads(threads)
    if now[1] != matmul:
        torch.set_float32_matmul_precision(matmul)
    if now[2] != convolutions:
        torch.backends.cudnn.allow_tf32 = convolutions
