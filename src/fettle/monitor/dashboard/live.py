"""The dashboard of a log that is being written, for a server to show.

```python
live = Live(Showing(log="predictions.db", bundle="best/"))
live.start()
answer = live.answer(b"part=main", if_none_match)      # for each request; returns at once
live.close()
```

The page is made by a process of its own (`_worker`): reading a log takes seconds of a core, which a
server that answers in milliseconds doesn't have, nor the lock of its interpreter. Here it is only
kept, and given out.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import IO, Any, NamedTuple

from fettle.monitor.dashboard._page import fragment, page
from fettle.monitor.dashboard._worker import HEAD, Showing

__all__ = ["Answer", "Live", "Showing"]

HTML = b"text/html; charset=utf-8"
_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
_COMMAND = (sys.executable, "-m", "fettle.monitor.dashboard._worker")
_AGAIN_S = (1.0, 60.0)  # after a worker died: at first, at most
_MOST = 64 << 20  # bytes of a page: more is no page


class Answer(NamedTuple):
    """What a request for the dashboard is answered with."""

    status: int
    body: bytes
    kind: bytes
    headers: Sequence[tuple[bytes, bytes]]


class _Pages(NamedTuple):
    """The page, its main part, and a mark of what they hold."""

    whole: bytes
    main: bytes
    mark: bytes


class Live:
    """Keeps the newest page of a log, and the process that makes it.

    Args:
        showing: what is shown.
        command: that starts the worker.

    Attributes:
        starts: how often a worker was started.
    """

    def __init__(self, showing: Showing, command: Sequence[str] = _COMMAND) -> None:
        self._showing, self._command = showing, command
        self._pages = _pages(*_waiting(showing))
        self._stop = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep, name="fettle-dashboard", daemon=True)
        self.starts = 0

    def start(self) -> None:
        """Begin to make pages."""
        self._thread.start()

    def answer(self, query: bytes = b"", if_none_match: bytes = b"") -> Answer:
        """Return what a GET of the page is answered with; `?part=main` asks for what changes."""
        pages = self._pages
        headers = (*_HEADERS, (b"etag", pages.mark))
        if query != b"part=main":
            return Answer(200, pages.whole, HTML, headers)
        if if_none_match == pages.mark:
            return Answer(304, b"", HTML, headers)
        return Answer(200, pages.main, HTML, headers)

    def close(self, seconds: float = 5.0) -> None:
        """End the worker, and wait for it at most so long."""
        self._stop.set()
        process = self._process
        if process is not None:
            process.terminate()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def _keep(self) -> None:
        """Keep a worker running, and take what it makes."""
        pause, most = _AGAIN_S
        while not self._stop.is_set():
            began = time.monotonic()
            self._run()
            pause = _AGAIN_S[0] if time.monotonic() - began > most else min(most, 2 * pause)
            self._stop.wait(pause)

    def _run(self) -> None:
        command = [*self._command, self._showing.to_text()]
        with subprocess.Popen(  # noqa: S603 - our own module
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            self._process, self.starts = process, self.starts + 1
            if self._stop.is_set():
                process.terminate()
            assert process.stdout is not None
            while (found := _read(process.stdout)) is not None:
                self._pages = _pages(*found)
            process.kill()
        self._process = None


def _pages(whole: bytes, main: bytes) -> _Pages:
    mark = hashlib.sha256(main).hexdigest()[:20]
    return _Pages(whole, main, f'"{mark}"'.encode())


def _read(stream: IO[bytes]) -> tuple[bytes, bytes] | None:
    """Return what the worker made next; None when it has ended."""
    head = stream.read(HEAD.size)
    if len(head) < HEAD.size:
        return None
    sizes = HEAD.unpack(head)
    if max(sizes) > _MOST:
        return None
    whole, main = (stream.read(size) for size in sizes)
    return (whole, main) if len(main) == sizes[1] else None


def _waiting(showing: Showing) -> tuple[bytes, bytes]:
    """Return the page before the first one was made."""
    empty = ("series", "failures", "shadow", "ab", "cost", "findings")
    state: dict[str, Any] = {
        **{name: [] for name in empty},
        **dict.fromkeys(("span", "since", "drift", "accuracy", "triage", "alerts")),
        "source": "reading the log …",
        "losses": {},
        "made": 0.0,
        "window_seconds": 60.0,
    }
    return page(state, showing.every_s).encode(), fragment(state).encode()
