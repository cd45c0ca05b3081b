"""The pre-deployment checklist as plain text."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

_MARKS = {True: "pass", False: "FAIL", None: "–"}
_WIDTH = 120


def checklist_text(result: Mapping[str, Any]) -> str:
    """Return one line a check, then one a batch size, then the outcome."""
    rows = [line for check in result["checks"] for line in _row(check)]
    sizes = [_size(size, found) for size, found in result["latency_ms"].items()]
    failed = [check["name"] for check in result["checks"] if check["passed"] is False]
    end = f"FAIL: {', '.join(failed)}" if failed else "PASS"
    return "\n".join([*rows, "", *sizes, "", f"{end} (written into the bundle's manifest)"])


def _row(check: Mapping[str, Any]) -> list[str]:
    head = f"{_MARKS[check['passed']]:4}  {check['name']:14}  "
    return textwrap.wrap(
        head + check["text"], _WIDTH, subsequent_indent=" " * len(head), drop_whitespace=True
    )


def _size(size: str, found: Mapping[str, Any]) -> str:
    shown = [f"p{q} {_ms(found[f'p{q}'])}" for q in (50, 95, 99)]
    return f"batch {size:>4}  {'  '.join(shown)}"


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g} ms"
