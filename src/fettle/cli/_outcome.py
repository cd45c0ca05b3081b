"""What a verb hands back to be printed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """`data` for `--json`, `text` for people, and the exit code; `shown` if it was printed."""

    data: dict[str, Any]
    text: str
    exit_code: int = 0
    shown: bool = False


def judged(result: dict[str, Any], text: str) -> Outcome:
    """Return the outcome of a study: exit code 0 only for a pass."""
    return Outcome(result, text, 0 if result["verdict"] == "pass" else 1)
