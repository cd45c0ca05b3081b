"""What a rollout decided, when and on what evidence: one JSON object a line, for people and tools.

A server that starts again reads it, and goes on where the last one stopped: what was rolled back
stays rolled back.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

from fettle.core.errors import DataError
from fettle.core.files import storage_errors

Kind = Literal["start", "promote", "complete", "rollback", "restart", "resume", "refuse"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_KEPT = 100


@dataclass(frozen=True)
class Decision:
    """One decision.

    Attributes:
        decision: "start", "promote", "complete" (answers all from now on), "rollback", "restart"
            (a bundle was replaced), "resume" (after a restart of the server) or "refuse" (the
            bundle doesn't fit).
        model: what callers ask for.
        reason: in words.
        primary, canary: which bundles.
        before, after: the share of callers that the canary answers.
        step: of the steps, from 0; as many as there are steps once it answers all.
        evidence: for each measure its hits, n, estimate, interval, limit and confidence.
        time: in UTC, ISO 8601.
    """

    decision: Kind
    model: str
    reason: str
    primary: str
    canary: str
    before: float
    after: float
    step: int
    evidence: Mapping[str, Any] = field(default_factory=dict)
    time: str = ""


class Decisions:
    """Keeps decisions in file `path`, where one is given, and the last of them in memory.

    A file that can't be written costs its lines, which are counted: a rollback isn't put off for
    a full disk.

    Attributes:
        lost: decisions that the file doesn't hold.

    Raises:
        DataError: the file is no text.
        StorageError: it can't be read.
    """

    def __init__(self, path: Path | None = None, clock: Callable[[], float] = time.time) -> None:
        self.path, self._clock = path, clock
        self._lock = threading.Lock()
        self._recent: deque[Decision] = deque(maxlen=_KEPT)
        self.lost = 0
        if path is not None and path.exists():
            self._recent.extend(_read(path))

    def add(self, decision: Decision) -> Decision:
        """Keep a decision, with the time."""
        now = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds")
        dated = Decision(**{**vars(decision), "time": now})
        with self._lock:
            self._recent.append(dated)
            if self.path is not None:
                self._append(json.dumps(asdict(dated), allow_nan=False) + "\n")
        return dated

    @property
    def recent(self) -> list[Decision]:
        """The last hundred, oldest first; those of servers before this one too."""
        with self._lock:
            return list(self._recent)

    def last(self, model: str, primary: str, canary: str) -> Decision | None:
        """Return what was last decided on a canary against a primary."""
        about = (model, primary, canary)
        found = (d for d in reversed(self.recent) if (d.model, d.primary, d.canary) == about)
        return next(found, None)

    def _append(self, line: str) -> None:
        assert self.path is not None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab+") as file:
                file.write((_mended(file) + line).encode())
        except OSError:
            self.lost += 1


def _mended(file: BinaryIO) -> str:
    """Return what ends a line that was cut off, where the file ends in one."""
    if file.seek(0, os.SEEK_END) == 0:
        return ""
    file.seek(-1, os.SEEK_END)
    return "" if file.read() == b"\n" else "\n"


def _read(path: Path) -> list[Decision]:
    """Return the decisions in a file; a line that was cut off is passed over."""
    with storage_errors(path):
        try:
            lines = path.read_text("utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise DataError(f"{path} expects lines of JSON, got something else: {error}") from error
    return [decision for line in lines if (decision := _parsed(line)) is not None]


def _parsed(line: str) -> Decision | None:
    try:
        found = Decision(**json.loads(line))
    except (ValueError, TypeError):
        return None
    whole = isinstance(found.step, int) and isinstance(found.reason, str)
    return found if whole and found.decision in KINDS else None
