"""Writing a dated result: what was run, where, when, and the table."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from fettle.core.files import write_text
from fettle.core.machine import this_machine, versions

RESULTS = Path(__file__).resolve().parent / "results"


def record(name: str, title: str, parts: Sequence[str]) -> Path:
    """Write `results/<date>-<name>.md` and return its path."""
    machine, installed = this_machine(), versions()
    day = datetime.now(UTC).strftime("%Y-%m-%d")
    shown = ("torch", "torchao", "onnxruntime", "openvino")
    head = [
        f"# {title}",
        "",
        f"{day} · `python benchmarks/{shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])}` ·"
        f" {machine.cpu}, {machine.threads} threads, {', '.join(machine.isa)} ·"
        f" {', '.join(f'{p} {installed[p]}' for p in shown if p in installed)}",
        "",
    ]
    path = RESULTS / f"{day}-{name}.md"
    write_text(path, "\n".join([*head, *parts]).rstrip() + "\n")
    print(path.relative_to(RESULTS.parent.parent))
    return path


def interval(value: dict[str, float] | None, digits: int = 2) -> str:
    """Return `3.10 [3.05, 3.15]`."""
    if value is None:
        return "–"
    return f"{value['value']:.{digits}f} [{value['low']:.{digits}f}, {value['high']:.{digits}f}]"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]
