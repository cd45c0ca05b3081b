"""Drawings over time: lines, bands and bars laid out in pixels; the template only writes them down.

Whatever a drawing shows can be reached: each window is a `Point` with its numbers in words, that
the mouse, a finger or the arrow keys bring up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fettle.monitor.dashboard._axes import Scale, log_ticks, reach, ticks, time_ticks

SIZES = {"wide": (760, 240), "narrow": (340, 220)}
_LEFT, _TOP, _BOTTOM = 52, 14, 26
_LABEL = 14  # pixels between two names at the end of lines
_LOG_FROM = 12.0  # times the smallest value, from which lines are drawn by logarithm

Value = float | None


@dataclass(frozen=True)
class Line:
    """One line: a name, a class of the style sheet, a value for each window, and bounds or none.

    Attributes:
        reference: what it is held against, drawn dashed across.
    """

    name: str
    kind: str
    values: Sequence[Value]
    low: Sequence[Value] = ()
    high: Sequence[Value] = ()
    reference: float | None = None


@dataclass(frozen=True)
class Told:
    """What a window says in words: a title, and lines of text."""

    title: str
    lines: tuple[str, ...]

    @property
    def whole(self) -> str:
        """All of it, for who can't see it."""
        return f"{self.title}: {', '.join(self.lines)}"


@dataclass(frozen=True)
class Series:
    """Windows of one width in seconds, and what is drawn of them.

    Attributes:
        starts: of the windows, in seconds of the epoch, rising.
        bars: whether the lines are drawn as bars, one upon the other.
        form: turns a value of the upright axis into text.
        zero: whether that axis begins at zero.
        marks: values across which a quiet line is drawn, with a name.
    """

    starts: Sequence[float]
    width: float
    lines: Sequence[Line]
    told: Sequence[Told]
    form: Callable[[float], str]
    bars: bool = False
    zero: bool = True
    log: bool = False
    marks: Sequence[tuple[float, str]] = ()


@dataclass(frozen=True)
class Drawn:
    """A path or a bar, and its class."""

    kind: str
    path: str


@dataclass(frozen=True)
class Label:
    """A word at a place."""

    kind: str
    text: str
    x: float
    y: float


@dataclass(frozen=True)
class Point:
    """A window on the drawing: its middle, its breadth, and what it says."""

    x: float
    left: float
    breadth: float
    told: Told
    dots: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Chart:
    """A drawing, all in pixels."""

    size: str
    width: int
    height: int
    left: float
    right: float
    top: float
    bottom: float
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]
    bands: Sequence[Drawn] = ()
    lines: Sequence[Drawn] = ()
    dashes: Sequence[tuple[str, float]] = ()
    marks: Sequence[tuple[float, str]] = ()
    labels: Sequence[Label] = ()
    points: Sequence[Point] = field(default=())


def charts(series: Series) -> list[Chart]:
    """Return the drawing for wide and for narrow screens; nothing of no windows."""
    return [_chart(series, name, *size) for name, size in SIZES.items()] if series.starts else []


def _chart(series: Series, name: str, width: int, height: int) -> Chart:
    right = width - (12 if series.bars else 46)
    bottom = height - _BOTTOM
    across = Scale(series.starts[0], series.starts[-1] + series.width, _LEFT, right)
    up = _up(series, bottom)
    middles = [across(start + series.width / 2) for start in series.starts]
    few = 6 if width > 500 else 3
    chosen = log_ticks(up.low, up.high, 5) if up.log else ticks(up.low, up.high, 5)
    drawn = _bars if series.bars else _lines
    return Chart(
        size=name,
        width=width,
        height=height,
        left=_LEFT,
        right=right,
        top=_TOP,
        bottom=bottom,
        x_ticks=[(across(at), text) for at, text in time_ticks(across.low, across.high, few)],
        y_ticks=[(up(value), series.form(value)) for value in chosen],
        bands=[] if series.bars else _bands(series, middles, up),
        lines=drawn(series, middles, up, across),
        dashes=[(li.kind, up(li.reference)) for li in series.lines if li.reference is not None],
        marks=[(up(value), text) for value, text in series.marks],
        labels=[] if series.bars else _labels(series, up, right + 6),
        points=_points(series, middles, up, across),
    )


def _up(series: Series, bottom: float) -> Scale:
    if series.bars:
        heights = [sum(v or 0 for v in values) for values in zip(*_values(series), strict=True)]
        return Scale(*reach(heights), bottom, _TOP)
    known = [v for line in series.lines for v in (*line.values, *line.low, *line.high)
             if v is not None]  # fmt: skip
    known += [line.reference for line in series.lines if line.reference is not None]
    known += [value for value, _ in series.marks]
    least = min((v for v in known if v > 0), default=0.0)
    if series.log and least and max(known) > _LOG_FROM * least and min(known) > 0:
        return Scale(least / 1.3, max(known) * 1.3, bottom, _TOP, log=True)
    return Scale(*reach(known, series.zero), bottom, _TOP)


def _values(series: Series) -> list[Sequence[Value]]:
    return [line.values for line in series.lines]


def _lines(series: Series, middles: Sequence[float], up: Scale, across: Scale) -> list[Drawn]:
    del across
    return [Drawn(line.kind, _path(series, line.values, middles, up)) for line in series.lines]


def _path(series: Series, values: Sequence[Value], middles: Sequence[float], up: Scale) -> str:
    """Return a path that is broken where windows are missing; one alone is a dash."""
    parts: list[str] = []
    before: float | None = None
    for start, x, value in zip(series.starts, middles, values, strict=True):
        if value is None:
            before = None
            continue
        joined = before is not None and start - before < 1.5 * series.width
        parts.append(
            f"L{x} {up(value)}" if joined else f"M{x - 2:g} {up(value)}L{x + 2:g} {up(value)}"
        )
        before = start
    return "".join(parts)


def _bands(series: Series, middles: Sequence[float], up: Scale) -> list[Drawn]:
    """Return the areas between the bounds of lines that have some."""
    found = []
    for line in series.lines:
        ends = [
            (x, up(low), up(high))
            for x, low, high in zip(middles, line.low, line.high, strict=False)
            if low is not None and high is not None
        ]
        if len(ends) > 1:
            there = "L".join(f"{x} {high}" for x, _, high in ends)
            back = "L".join(f"{x} {low}" for x, low, _ in reversed(ends))
            found.append(Drawn(line.kind, f"M{there}L{back}Z"))
    return found


def _bars(series: Series, middles: Sequence[float], up: Scale, across: Scale) -> list[Drawn]:
    """Return a bar for each window and line, the first line below."""
    half = max(0.6, 0.4 * (across(across.low + series.width) - across.start))
    ground = [0.0] * len(middles)
    found = []
    for line in series.lines:
        path = []
        for at, (x, value) in enumerate(zip(middles, line.values, strict=True)):
            if value:
                top, foot = up(ground[at] + value), up(ground[at])
                path.append(f"M{x - half:.1f} {foot}V{top}H{x + half:.1f}V{foot}Z")
                ground[at] += value
        found.append(Drawn(line.kind, "".join(path)))
    return found


def _labels(series: Series, up: Scale, x: float) -> list[Label]:
    """Return the names of lines at their ends, moved apart where they would touch."""
    ends = [
        (up(values[-1]), line)
        for line in series.lines
        if (values := [v for v in line.values if v is not None]) and line.name
    ]
    placed: list[Label] = []
    for y, line in sorted(ends, key=lambda end: -end[0]):
        below = placed[-1].y - _LABEL if placed else y + 4
        placed.append(Label(line.kind, line.name, x, round(min(y + 4, below), 1)))
    return placed


def _points(series: Series, middles: Sequence[float], up: Scale, across: Scale) -> list[Point]:
    breadth = across(across.low + series.width) - across.start
    found = []
    for at, (x, told) in enumerate(zip(middles, series.told, strict=True)):
        values = [(line.kind, line.values[at]) for line in series.lines]
        dots = () if series.bars else tuple((k, up(v)) for k, v in values if v is not None)
        found.append(Point(x, round(x - breadth / 2, 1), round(max(breadth, 1.0), 1), told, dots))
    return found
