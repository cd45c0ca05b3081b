"""The thread that writes a log: a few times a second, all that waits; through every trouble.

What can't be written now is held and tried again, with longer and longer pauses. Meanwhile the
queue fills up, and what no longer fits is counted; the count is written once the log can be.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from fettle.core.errors import FettleError
from fettle.monitor._schema import refusals
from fettle.monitor._store import Store
from fettle.monitor._waiting import Load, Waiting

Prepare = Callable[[Load], tuple[Load, Counter[str]]]
"""Makes rows of what waits; returns what is to be written, and how many are withheld, by kind."""

PAUSE_S = 0.2
_LONGEST_S = 5.0
_RETAINED_AT_ONCE = 5000
_IDLE_ROUNDS = 300  # how often an idle log looks for what is too old: about each minute
_DAY_NS = 86_400 * 10**9


class Writer:
    """Writes what waits into the log in file `path`, by a thread of its own.

    Attributes:
        written: predictions and labels that the log holds, or held until they were too old.
        lost: what it can't hold, by kind: "unfit", "examples", "redaction", "omitted".
        trouble: why nothing can be written now; '' for none.

    Raises:
        StorageError, DataError: the log can't be opened at all.
    """

    def __init__(
        self, path: Path, waiting: Waiting, prepare: Prepare, most: int, days: float
    ) -> None:
        self._path, self._waiting, self._prepare = path, waiting, prepare
        self._most, self._days = most, days
        with refusals(path):
            self._store: Store | None = Store(path)
        self._offset_ns = time.time_ns() - time.monotonic_ns()
        self._held, self._pause, self._idle = Load(), PAUSE_S, 0
        self.written, self.trouble = 0, ""
        self.lost: Counter[str] = Counter()
        self._asked, self._closed = threading.Event(), False
        self._rounds = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="fettle-log", daemon=True)
        self._thread.start()

    def flush(self, seconds: float) -> bool:
        """Write now; wait until nothing is left, or `seconds`. Return whether nothing is left."""
        deadline = time.monotonic() + seconds
        with self._rounds:
            while self._left and self._thread.is_alive() and time.monotonic() < deadline:
                self._asked.set()
                self._rounds.wait(min(PAUSE_S, seconds))
            return not self._left

    def close(self, seconds: float) -> bool:
        """Write what is left, at most for so long, and end; return whether nothing was left."""
        done = self.flush(seconds)
        self._closed = True
        self._asked.set()
        self._thread.join(seconds)
        return done

    @property
    def _left(self) -> bool:
        """Whether something still waits; `written` is told last, after it is on disk."""
        return self.written + self._gone < self._waiting.taken

    @property
    def _gone(self) -> int:
        return sum(count for kind, count in self.lost.items() if kind != "examples")

    @property
    def _now_ns(self) -> int:
        """The wall clock, deaf to its jumps: a year too far, it would empty the log."""
        return self._offset_ns + time.monotonic_ns()

    def _work(self) -> None:
        while not self._closed:
            self._asked.wait(self._pause)
            self._asked.clear()
            self._round()
            with self._rounds:
                self._rounds.notify_all()
        if self._store is not None:
            self._store.close()

    def _round(self) -> None:
        load = self._held = self._held or self._prepared(self._waiting.take())
        try:
            self._write(load)
        except (sqlite3.Error, FettleError, OSError) as error:
            self._troubled(error)
        except Exception as error:  # rows of no known kind: trying again would not help
            self._troubled(error)
            self.lost["unfit"] += len(load.predictions) + len(load.labels)
            self._held = Load()
        else:
            self._pause, self.trouble = PAUSE_S, ""

    def _write(self, load: Load) -> None:
        store = self._opened()
        if load:
            lost = store.write(load, time.time_ns())
            self._held = Load()
            self.lost += lost
            self.written += len(load.predictions) + len(load.labels) - lost["unfit"]
        self._idle = 0 if load else self._idle + 1
        if load or self._idle % _IDLE_ROUNDS == 0:
            oldest = self._now_ns - int(self._days * _DAY_NS)
            store.retain(self._most, oldest, max(_RETAINED_AT_ONCE, 2 * len(load.predictions)))

    def _troubled(self, error: Exception) -> None:
        self.trouble = f"{type(error).__name__}: {error}"
        self._pause = min(_LONGEST_S, 2 * self._pause)
        self._close_store()

    def _opened(self) -> Store:
        if self._store is not None and self._store.moved:
            self._close_store()
        if self._store is None:
            self._store = Store(self._path)
        return self._store

    def _close_store(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            store.close()

    def _prepared(self, load: Load) -> Load:
        ready, withheld = self._prepare(load)
        self.lost += withheld
        return ready
