"""Alerts that were, one JSON object a line: who watches next goes on where the last one stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from fettle.core.errors import DataError
from fettle.core.files import storage_errors
from fettle.monitor.alerts.watch import Alert, Key

_MOST = 1000


@dataclass
class History:
    """Keeps alerts in file `path`; in memory only where there is none.

    Attributes:
        until: the last moment that was looked at, in seconds of the epoch.

    Raises:
        DataError: the file is no text.
        StorageError: it can't be read.
    """

    path: Path | None = None
    until: float = float("-inf")
    _alerts: dict[tuple[Key, float], Alert] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.path is not None and self.path.exists():
            for line in _lines(self.path):
                self._take(line)

    @property
    def alerts(self) -> list[Alert]:
        """All alerts, the newest first; of those that are over, the last thousand."""
        return sorted(self._alerts.values(), key=lambda alert: -alert.started)[:_MOST]

    @property
    def firing(self) -> list[Alert]:
        """Those that are not over."""
        return [alert for alert in self._alerts.values() if alert.ended is None]

    def add(self, alerts: Sequence[Alert], until: float) -> None:
        """Keep alerts that began or ended, and up to when was looked.

        Raises:
            StorageError: the file can't be written.
        """
        lines: list[dict[str, Any]] = [alert.to_json() for alert in alerts]
        lines.append({"until": until})
        for line in lines:
            self._take(line)
        if self.path is None:
            return
        text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
        with storage_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab+") as file:
                file.write((_mended(file) + text).encode())

    def to_json(self, rules: int) -> dict[str, Any]:
        """Return what the dashboard shows."""
        return {
            "rules": rules,
            "firing": [alert.to_json() for alert in self.firing],
            "history": [alert.to_json() for alert in self.alerts[:50]],
        }

    def _take(self, line: dict[str, Any]) -> None:
        if "until" in line:
            self.until = max(self.until, float(line["until"]))
            return
        alert = Alert(**line)
        self._alerts[alert.key, alert.started] = alert


def _mended(file: BinaryIO) -> str:
    """Return what ends a line that was cut off, where the file ends in one."""
    if file.seek(0, os.SEEK_END) == 0:
        return ""
    file.seek(-1, os.SEEK_END)
    return "" if file.read() == b"\n" else "\n"


def _lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a file; one that was cut off is passed over."""
    with storage_errors(path):
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{path} expects lines of JSON, got something else: {error}") from error
    found = []
    for line in text.splitlines():
        try:
            entry = json.loads(line)
            if isinstance(entry, dict) and ("until" in entry or Alert(**entry)):
                found.append(entry)
        except (ValueError, TypeError):
            continue
    return found
