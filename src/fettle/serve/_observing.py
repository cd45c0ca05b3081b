"""Telling observers of each prediction: after the answer, and never in a request's way.

An observer has a thread and a queue of its own, bounded in number and in bytes. One that hangs or
fails costs its own predictions, which are counted, and nobody else's.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from fettle.monitor.answered import Answered, nbytes, predictions
from fettle.serve.seams import Observer

Seen = Answered
"""One request that was answered or failed, as the service saw it."""

_MOST = 4096  # predictions
_MOST_BYTES = 64 << 20  # of their arrays
_TOGETHER_S = 0.02  # how long what comes is gathered: rows of a hundred cost a tenth of single ones
_AT_ONCE = 256


class Told(Protocol):
    """What can be told of a request at once, without holding it up."""

    dropped: int
    failed: int

    def tell(self, seen: Seen) -> None:
        """Take it, or count it as dropped; returns at once."""

    def close(self, seconds: float = 5.0) -> None:
        """Take nothing more, and end what was begun."""


def channel_to(observer: Observer | Told) -> Told:
    """Return the way to an observer: its own, as the prediction log has one, or a channel."""
    own: Any = observer
    return own if hasattr(observer, "tell") else Channel(observer)


class Channel:
    """The way to one observer. One that has a `wants` is told only of what it wants.

    Attributes:
        dropped: predictions that it was too slow for.
        failed: predictions on which it raised.
    """

    def __init__(
        self, observer: Observer, most: int = _MOST, most_bytes: int = _MOST_BYTES
    ) -> None:
        self.observer, self._most, self._most_bytes = observer, most, most_bytes
        self._wants: Callable[[Seen], bool] = getattr(observer, "wants", lambda _: True)
        self._waiting: list[Seen] = []
        self._bytes = 0
        self._lock, self._some = threading.Lock(), threading.Event()
        self._closed = False
        self.dropped = self.failed = 0
        name = f"fettle-observer-{type(observer).__name__}"
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def tell(self, seen: Seen) -> None:
        """Hand it on, or count it as dropped; returns at once."""
        if not self._wants(seen):
            return
        size = nbytes(seen.inputs, seen.outputs)
        with self._lock:
            full = len(self._waiting) >= self._most or self._bytes + size > self._most_bytes
            if full or self._closed:
                self.dropped += 1
                return
            self._waiting.append(seen)
            self._bytes += size
        if not self._some.is_set():
            self._some.set()

    def close(self, seconds: float = 5.0) -> None:
        """Take nothing more, and wait at most so long until all was handed on."""
        with self._lock:
            self._closed = True
        self._some.set()
        self._thread.join(seconds)

    def _work(self) -> None:
        closed = False
        while not closed:
            self._some.wait()
            closed = self._closed
            if not closed:
                time.sleep(_TOGETHER_S)
            self._some.clear()
            while batch := self._take():
                for start in range(0, len(batch), _AT_ONCE):
                    self._show(batch[start : start + _AT_ONCE])

    def _take(self) -> list[Seen]:
        with self._lock:
            batch, self._waiting, self._bytes = self._waiting, [], 0
        return batch

    def _show(self, batch: Sequence[Seen]) -> None:
        for prediction, seen in zip(predictions(batch), batch, strict=True):
            try:
                self.observer.seen(prediction, seen.inputs, seen.outputs)
            except Exception:  # an observer is anyone's code: it must not end its thread
                self.failed += 1
