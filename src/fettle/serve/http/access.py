"""The access log: one JSON line a request, written by a thread so that no request waits for it.

What reads the lines may be slow, or hang. Then lines are dropped, and the next one that is written
tells how many.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import IO, NamedTuple

import orjson

_MOST = 65_536  # lines
_EVERY_S = 0.05


class Access(NamedTuple):
    """One answered request; a reply that nobody waited for has status 499."""

    time: float
    peer: str
    method: str
    path: str
    status: int
    taken: int
    given: int
    ms: float
    id: str


class AccessLog:
    """Writes lines to `stream`, in its own time.

    Attributes:
        dropped: lines that were lost as the stream was too slow.
    """

    def __init__(self, stream: IO[bytes], most: int = _MOST) -> None:
        self._stream, self._most = stream, most
        self._lines: deque[Access] = deque()
        self._closing = threading.Event()
        self.dropped = 0
        self._told = 0
        self._thread = threading.Thread(target=self._work, name="fettle-access", daemon=True)
        self._thread.start()

    def add(self, line: Access) -> None:
        """Take a line; returns at once."""
        if len(self._lines) < self._most:
            self._lines.append(line)
        else:
            self.dropped += 1

    def close(self, seconds: float = 2.0) -> None:
        """Write what was taken, and wait for it at most so long."""
        self._closing.set()
        self._thread.join(seconds)

    def _work(self) -> None:
        closing = False
        while not closing:
            closing = self._closing.wait(_EVERY_S)
            text = b"".join(self._texts())
            if text:
                self._write(text)

    def _texts(self) -> list[bytes]:
        texts = [_text(self._lines.popleft()) for _ in range(len(self._lines))]
        missing = self.dropped - self._told
        if missing:
            self._told += missing
            texts.append(orjson.dumps({"time": time.time(), "dropped": missing}) + b"\n")
        return texts

    def _write(self, text: bytes) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # closed, or full: serving matters more
            self.dropped += text.count(b"\n")


def _text(line: Access) -> bytes:
    fields = line._asdict()
    fields["path"] = line.path[:500].encode("utf-8", "backslashreplace").decode()
    fields["ms"] = round(line.ms, 3)
    return orjson.dumps(fields) + b"\n"
