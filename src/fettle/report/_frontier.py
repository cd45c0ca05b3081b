"""Accuracy against latency: which points there are, and where on a drawing they stand."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fettle.report import _format as form
from fettle.report._record import Interval, Record, Trial
from fettle.report._scale import Scale, log_ticks, padded, padded_log, ticks

KINDS = {"fp32": "FP32", "half": "BF16 or FP16", "int8": "INT8", "torch": "PyTorch eager"}
SHOWN_LOSS = 0.10  # points further below the best are drawn at the lower edge, marked as such


@dataclass(frozen=True)
class Point:
    """One trial on the plane: latency p50 in milliseconds, quality with its interval."""

    trial: Trial
    kind: str
    latency: float
    quality: Interval
    best: bool
    baseline: bool
    frontier: bool = False

    @property
    def role(self) -> str:
        """What the point is called on the drawing; most are not called anything."""
        return "baseline = best" if self.best and self.baseline else self._single_role()

    def _single_role(self) -> str:
        return "best" if self.best else "baseline" if self.baseline else ""


@dataclass(frozen=True)
class Frontier:
    """All points, fastest first, and the least quality that the budget allows."""

    points: tuple[Point, ...]
    floor: float | None
    metric: str

    @property
    def kinds(self) -> list[str]:
        """The kinds that occur, in the order of the legend."""
        used = {point.kind for point in self.points}
        return [kind for kind in KINDS if kind in used]


@dataclass(frozen=True)
class Mark:
    """A point's place in pixels; `below` when its quality lies under the axis."""

    point: Point
    x: float
    y: float
    y_low: float
    y_high: float
    below: bool


@dataclass(frozen=True)
class Label:
    """A word beside a mark, placed where it hides nothing."""

    text: str
    x: float
    y: float
    anchor: str


@dataclass(frozen=True)
class Plot:
    """A drawing of the frontier: all places in pixels, ticks as (pixel, text)."""

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int
    marks: tuple[Mark, ...]
    labels: tuple[Label, ...]
    line: str
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    budget: float | None


def frontier_info(record: Record) -> Frontier:
    """Return the trials that have both a latency and a quality, fastest first."""
    points = [found for trial in record.measured if (found := _point(record, trial))]
    joined = {trial.key for trial in record.frontier}
    joined = joined or {point.trial.key for point in _unbeaten(points)}
    marked = (replace(point, frontier=point.trial.key in joined) for point in points)
    return Frontier(tuple(marked), _floor(record), record.metric)


def plot(info: Frontier, width: int, height: int) -> Plot | None:
    """Lay the points out on `width` × `height` pixels; None when there are no points."""
    if not info.points:
        return None
    left, right, top, bottom = 56, width - 16, 20, height - 48
    across, up = _across(info, left, right), _up(info, bottom, top)
    marks = tuple(_mark(point, across, up) for point in info.points)
    few = max((right - left) // 90, 3)
    return Plot(
        width=width,
        height=height,
        left=left,
        right=right,
        top=top,
        bottom=bottom,
        marks=marks,
        labels=tuple(_labels(marks, (left, right, top, bottom))),
        line=_staircase([mark for mark in marks if mark.point.frontier], right),
        x_ticks=tuple((across(v), f"{v:g}") for v in log_ticks(across.low, across.high, few + 2)),
        y_ticks=tuple((up(v), f"{100 * v:.4g}") for v in ticks(up.low, up.high, 6)),
        budget=up(info.floor) if info.floor is not None and info.floor > up.low else None,
    )


def _point(record: Record, trial: Trial) -> Point | None:
    latency, quality = trial.latency.p50, trial.metric
    if quality is None or latency is None or latency <= 0:
        return None
    best, baseline = record.is_best(trial), record.is_baseline(trial)
    return Point(trial, _kind(trial), latency, quality, best, baseline)


def _unbeaten(points: list[Point]) -> list[Point]:
    """Return those of `points`, fastest first, that no faster one equals in quality."""
    kept: list[Point] = []
    for point in points:
        if not kept or point.quality.value > kept[-1].quality.value:
            kept.append(point)
    return kept


def _kind(trial: Trial) -> str:
    if trial.runtime.startswith(("pytorch", "torch")):
        return "torch"
    if trial.precision.startswith("int"):
        return "int8"
    return "fp32" if trial.precision in ("f32", "fp32", "float32", "") else "half"


def _floor(record: Record) -> float | None:
    quality = record.baseline.metric if record.baseline else None
    if quality is None or record.max_drop is None:
        return None
    return quality.value - record.max_drop


def _across(info: Frontier, left: int, right: int) -> Scale:
    low, high = padded_log([point.latency for point in info.points], 0.25)
    return Scale(low, high, left, right, log=True)


def _up(info: Frontier, bottom: int, top: int) -> Scale:
    best = max(point.quality.value for point in info.points)
    shown = [p.quality for p in info.points if p.quality.value >= best - SHOWN_LOSS]
    values = [value for quality in shown for value in (quality.low, quality.high)]
    if info.floor is not None and info.floor >= best - SHOWN_LOSS:
        values.append(info.floor)
    return Scale(*padded(values, 0.08), bottom, top)


def _mark(point: Point, across: Scale, up: Scale) -> Mark:
    quality = point.quality
    return Mark(
        point=point,
        x=across(point.latency),
        y=up(quality.value),
        y_low=up(quality.low),
        y_high=up(quality.high),
        below=quality.value < up.low,
    )


def _staircase(marks: list[Mark], right: int) -> str:
    """Return the path of what is reachable: quality rises only where a point stands."""
    if not marks:
        return ""
    steps = [f"M{marks[0].x} {marks[0].y}"]
    steps += [f"H{mark.x}V{mark.y}" for mark in marks[1:]]
    return "".join(steps) + f"H{right}"


def _labels(marks: tuple[Mark, ...], frame: tuple[int, int, int, int]) -> list[Label]:
    placed: list[Label] = []
    for mark in marks:
        if mark.point.role:
            options = _options(mark)
            placed.append(min(options, key=lambda label: _crowding(label, marks, placed, frame)))
    return placed


def _options(mark: Mark) -> list[Label]:
    text, x, y = mark.point.role, mark.x, mark.y
    return [
        Label(text, x + 14, y - 8, "start"),
        Label(text, x + 14, y + 16, "start"),
        Label(text, x - 14, y - 8, "end"),
        Label(text, x - 14, y + 16, "end"),
        Label(text, x, mark.y_high - 8, "middle"),
        Label(text, x, mark.y_low + 16, "middle"),
    ]


def _crowding(
    label: Label,
    marks: tuple[Mark, ...],
    placed: list[Label],
    frame: tuple[int, int, int, int],
) -> float:
    """Count what a label would hide; leaving the frame is worse than anything."""
    left, right, top, bottom = frame
    x0, x1, y0, y1 = _box(label)
    outside = x0 < left or x1 > right or y0 < top - 12 or y1 > bottom
    hidden = sum(x0 < m.x + 8 and x1 > m.x - 8 and y0 < m.y + 8 and y1 > m.y - 8 for m in marks)
    crossed = sum(x0 < m.x < x1 and y0 < m.y_low and y1 > m.y_high for m in marks)
    boxes = (_box(other) for other in placed)
    overlaps = sum(x0 < b1 and x1 > b0 and y0 < d1 and y1 > d0 for b0, b1, d0, d1 in boxes)
    return 100 * outside + 4 * overlaps + 2 * hidden + crossed


def _box(label: Label) -> tuple[float, float, float, float]:
    width = 7.2 * len(label.text)
    start = {"start": 0.0, "middle": width / 2, "end": width}[label.anchor]
    return label.x - start, label.x - start + width, label.y - 11, label.y + 3


def describe(point: Point) -> str:
    """Return everything a point says, as one sentence for those who can't see it."""
    quality = point.quality
    parts = [
        point.trial.title,
        *([point.role] if point.role else []),
        f"{form.percent(quality.value)} {form.percent_bounds(quality)}".strip(),
        form.milliseconds(point.latency),
        point.trial.line,
    ]
    return ", ".join(parts)
