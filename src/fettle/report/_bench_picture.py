"""Where the marks of the picture of a benchmark go: percent of the width, on one common scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fettle.report._bench_lines import Group, Line, Span
from fettle.report._scale import Scale, log_ticks, padded_log, ticks

_TICKS = 6
_LOG_FROM = 8.0  # a wider range than this is drawn by logarithm
_TAILS = ("p99", "p95", "p90")


@dataclass(frozen=True)
class Mark:
    """One lane: median with its interval, the tail, and the processor's own bound."""

    line: Line
    kind: str
    at: float
    low: float
    high: float
    tail: float | None
    tail_name: str
    bound: float | None


@dataclass(frozen=True)
class Panel:
    """One group; `floor` is where the noise floor around its fastest begins and ends."""

    group: Group
    marks: tuple[Mark, ...]
    floor: tuple[float, float] | None


@dataclass(frozen=True)
class Picture:
    """All panels on one scale; ticks as (percent, text)."""

    panels: tuple[Panel, ...]
    ticks: tuple[tuple[float, str], ...]
    log: bool


def picture(groups: Sequence[Group]) -> Picture | None:
    """Return the picture of all groups, or None when nothing ran."""
    values = [value for group in groups for line in group.lines for value in _reach(line)]
    if not values:
        return None
    log = max(values) / min(values) > _LOG_FROM
    low, high = padded_log(values, 0.12) if log else (0.0, 1.05 * max(values))
    scale = Scale(low, high, 0, 100, log)
    found = log_ticks(low, high, _TICKS) if log else ticks(low, high, _TICKS)
    panels = tuple(_panel(group, scale) for group in groups)
    return Picture(panels, tuple((scale(v), f"{v:.4g}") for v in found), log)


def _panel(group: Group, scale: Scale) -> Panel:
    floor = None
    if group.stray is not None:
        best = _median(group.lines[0]).value
        floor = (scale(best / group.stray), scale(best * group.stray))
    return Panel(group, tuple(_mark(line, scale) for line in group.lines), floor)


def _mark(line: Line, scale: Scale) -> Mark:
    median = _median(line)
    name, tail = _tail(line)
    bound = line.row.get("bound_ms")
    return Mark(
        line=line,
        kind=kind_of(line),
        at=scale(median.value),
        low=scale(median.value if median.low is None else median.low),
        high=scale(median.value if median.high is None else median.high),
        tail=None if tail is None else scale(tail),
        tail_name=name,
        bound=scale(bound) if bound else None,
    )


def kind_of(line: Line) -> str:
    """Return the kind of a row, which its colour and its shape tell."""
    if str(line.row["runtime"]).startswith("pytorch"):
        return "torch"
    if str(line.row["precision"]).startswith("int"):
        return "int8"
    return "half" if line.row["precision"] in ("bf16", "f16") else "fp32"


def _median(line: Line) -> Span:
    found = line.latency("p50")
    assert found is not None
    return found


def _tail(line: Line) -> tuple[str, float | None]:
    for name in _TAILS:
        span = line.latency(name)
        if span is not None:
            return name, span.value
    return "", None


def _reach(line: Line) -> list[float]:
    median, tail = _median(line), _tail(line)[1]
    found = [median.value, median.low, median.high, tail, line.row.get("bound_ms")]
    return [value for value in found if value]
