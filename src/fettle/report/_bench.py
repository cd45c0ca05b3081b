"""The table that `fettle bench` prints."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fettle.report import _format as form
from fettle.report._bench_lines import Group, Line, Span, calls_of, groups_of, refused_of
from fettle.report._bench_notes import notes_of

_WIDTH = 120
_NAME = 32
_WORDS = 4  # the first columns hold words; the others hold numbers and are set to the right


def bench_table(result: Mapping[str, Any]) -> str:
    """Return a benchmark as aligned text: a table for each batch and threads, fastest first."""
    parts = [part for group in groups_of(result) for part in (_table(group), "")]
    refused = [
        textwrap.fill(f"refused: {name} ({where}): {why}", _WIDTH, subsequent_indent="  ")
        for name, where, why in refused_of(result)
    ]
    wrapped = [textwrap.fill(n, _WIDTH, subsequent_indent="  ") for n in notes_of(result)]
    return "\n".join([*parts, *refused, *wrapped]).strip()


def _table(group: Group) -> str:
    columns = [c for c in _COLUMNS if any(c[1](line) for line in group.lines)]
    cells = [[cell(line) or form.DASH for _, cell in columns] for line in group.lines]
    first = [["→" if line.best else "=" if line.same else ""] for line in group.lines]
    lines = [a + b for a, b in zip(first, cells, strict=True)]
    floor = f"   noise floor ±{group.stray - 1:.1%}" if group.stray else ""
    return "\n".join([f"{group.title}{floor}", _aligned([["", *(c[0] for c in columns)], *lines])])


def _span(span: Span | None) -> str:
    if span is None:
        return ""
    value = form.significant(span.value)
    if span.low is None or span.high is None:
        return value
    return f"{value} [{form.significant(span.low)}, {form.significant(span.high)}]"


def _bare(key: str) -> Callable[[Line], str]:
    def cell(line: Line) -> str:
        span = line.latency(key)
        return form.significant(span.value) if span else ""

    return cell


def _number(key: str, scale: float = 1.0) -> Callable[[Line], str]:
    def cell(line: Line) -> str:
        value = line.row.get(key)
        return "" if value is None else form.significant(value * scale)

    return cell


def _behind(line: Line) -> str:
    if line.best:
        return "best"
    if line.behind is None:
        return ""
    if line.same:
        return "same"
    return f"{line.behind.value:.2f} [{line.behind.low:.2f}, {line.behind.high:.2f}]"


def _scenario(line: Line) -> str:
    found = line.row.get("scenario") or {}
    if "clients" in found:
        return f"offline: batch {found['batch']}, {found['clients']} clients"
    if "rate" in found:
        return f"server: {found['rate']:,.0f}/s within {found['bound_ms']:g} ms"
    return f"single stream: p90 {form.significant(found['value'])} ms" if found else ""


def _per_second(line: Line) -> str:
    return form.count(line.row["throughput"]) if line.row["throughput"] else ""


def _roofline(line: Line) -> str:
    fraction = line.row.get("bound_fraction")
    return "" if fraction is None else f"{fraction:.0%}"


_COLUMNS: tuple[tuple[str, Callable[[Line], str]], ...] = (
    ("artifact", lambda line: _tail(line.row["subject"])),
    ("runtime", lambda line: str(line.row["runtime"])),
    ("type", lambda line: str(line.row["precision"])),
    ("p50 ms [95 %]", lambda line: _span(line.latency("p50"))),
    ("p90", _bare("p90")),
    ("p95", _bare("p95")),
    ("p99", _bare("p99")),
    ("mean", _bare("mean")),
    ("× best", _behind),
    ("calls", lambda line: calls_of(line.row)),
    ("scenario", _scenario),
    ("per s", _per_second),
    ("of bound", _roofline),
    ("MB", _number("size_bytes", 1e-6)),
    ("peak MB", _number("peak_memory_bytes", 1e-6)),
    ("start ms", _number("cold_start_ms")),
    ("mJ", _number("energy_joules", 1e3)),
)


def _tail(name: str) -> str:
    return name if len(name) <= _NAME else f"…{name[1 - _NAME :]}"


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < _WORDS else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
