"""The journal: what was done and found, one JSON object a line, never rewritten."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fettle.core.files import storage_errors


class Journal:
    """An append-only file of events.

    A line that was torn by a crash is passed over when read, and cut off by the next write.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, event: str, **fields: Any) -> None:
        """Append one event, flushed to the disk."""
        line = json.dumps({"time": now(), "event": event, **fields}, default=str)
        with storage_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if _ends_torn(self.path):
                _mend(self.path)
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(f"{line}\n")
                stream.flush()
                os.fsync(stream.fileno())

    def read(self) -> list[dict[str, Any]]:
        """Return all whole events, oldest first."""
        if not self.path.exists():
            return []
        lines = self.path.read_bytes().split(b"\n")
        events = (_event(line) for line in lines)
        return [event for event in events if event is not None]


def _ends_torn(path: Path) -> bool:
    """Say whether the last line was not written to its end."""
    if not path.exists() or not path.stat().st_size:
        return False
    with path.open("rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return stream.read() != b"\n"


def _mend(path: Path) -> None:
    """Cut off a last line that was not written to its end; end it where only that was missing."""
    with path.open("r+b") as stream:
        whole, _, last = stream.read().rpartition(b"\n")
        if _event(last) is not None:
            stream.write(b"\n")
            return
        stream.seek(len(whole) + 1 if whole else 0)
        stream.truncate()


def _event(line: bytes) -> dict[str, Any] | None:
    """Return the event on a line, or None when the line is empty, torn or no event."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and "event" in found else None


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
