"""Ctrl-C that waits until a step is whole, so that the checkpoint it leaves can be resumed."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType


@dataclass
class Interrupt:
    """Whether somebody asked to stop."""

    asked: bool = False


@contextlib.contextmanager
def deferred() -> Iterator[Interrupt]:
    """Turn the first Ctrl-C in the block into `asked`; a second one breaks off at once."""
    interrupt = Interrupt()
    previous = signal.getsignal(signal.SIGINT)
    main = threading.current_thread() is threading.main_thread()
    if not (main and callable(previous)):  # another thread can't ask; nohup ignores on purpose
        yield interrupt
        return

    def ask(number: int, frame: FrameType | None) -> None:
        del number, frame
        interrupt.asked = True
        signal.signal(signal.SIGINT, previous)

    signal.signal(signal.SIGINT, ask)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, previous)
