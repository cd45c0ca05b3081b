"""The rows of the report's tables: pure data, tested by value, formatted elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

from fettle.report._guide import GuideRow, guide_row
from fettle.report._record import Interval, Record, Stage, Trial, text
from fettle.report._verdict import ratio

SAMPLES_FOR_P99 = 1000
STAGE_KINDS = ("train", "distill", "prune", "quantize", "graph", "export", "measure")


@dataclass(frozen=True)
class TechniqueRow:
    """Size, speed and drop of one trial beside the guide's row.

    `size` is a share of the baseline's file; `speed` is over the same runtime's FP32. The three
    `met` fields say whether the guide's number is reached: None when there is none to reach.
    """

    trial: Trial
    best: bool
    baseline: bool
    size: float | None
    speed: Interval | None
    drop: Interval | None
    guide: GuideRow | None
    size_met: bool | None
    speed_met: bool | None
    drop_met: bool | None


@dataclass(frozen=True)
class Segment:
    """One stage's part of a bar; `start` and `width` in percent of the longest bar."""

    stage: Stage
    kind: str
    start: float
    width: float


@dataclass(frozen=True)
class CostRow:
    """What the stages of one trial cost: seconds paid in this run, seconds saved by the cache.

    Trials that differ in their runtime alone share their stages, and so their row.
    """

    title: str
    segments: tuple[Segment, ...]
    paid: float
    cached: float


def technique_rows(record: Record) -> list[TechniqueRow]:
    """Return one row a measured trial, fastest first."""
    return [_technique_row(record, trial) for trial in record.measured]


def latency_rows(record: Record) -> list[Trial]:
    """Return the measured trials that have latencies, fastest first."""
    return [trial for trial in record.measured if trial.latency.p50 is not None]


def p99_reason(record: Record) -> str:
    """Return why some p99 is missing, or nothing when none is."""
    lacking = [t.latency.n for t in latency_rows(record) if t.latency.p99 is None]
    if not lacking:
        return ""
    samples = [n for n in lacking if n is not None]
    most = f"; the largest such run has {max(samples):,}" if samples else ""
    return f"p99 is shown from {SAMPLES_FOR_P99:,} samples on{most}."


def cost_rows(record: Record) -> list[CostRow]:
    """Return one row for all trials of one name and the same stages, in the search's order."""
    groups: dict[tuple[str, tuple[Stage, ...]], list[str]] = {}
    for trial in record.candidates:
        if trial.stages:
            groups.setdefault((trial.name, trial.stages), []).append(trial.runtime)
    longest = max((_seconds(stages) for _, stages in groups), default=0.0)
    return [
        _cost_row(_on(name, runtimes), stages, longest)
        for (name, stages), runtimes in groups.items()
    ]


def kinds_used(rows: list[CostRow]) -> list[str]:
    """Return the kinds of stage that occur, in the order of the walk."""
    used = {segment.kind for row in rows for segment in row.segments}
    return [kind for kind in (*STAGE_KINDS, "other") if kind in used]


def refused_rows(record: Record) -> list[Trial]:
    """Return the trials that were refused or failed."""
    return [trial for trial in record.candidates if trial.refused]


def machine_rows(record: Record) -> list[tuple[str, str]]:
    """Return name and value of everything that the numbers depend on."""
    machine = record.machine
    isa = machine.get("isa")
    rows = [
        ("processor", text(machine.get("cpu"))),
        ("instruction sets", ", ".join(text(x) for x in isa) if isinstance(isa, list) else ""),
        ("threads", text(machine.get("threads"))),
    ]
    for group in ("runtimes", "versions"):
        found = machine.get(group)
        if isinstance(found, dict):
            rows += [(text(name), text(version)) for name, version in sorted(found.items())]
    return [(name, value) for name, value in dict(rows).items() if value]


def _technique_row(record: Record, trial: Trial) -> TechniqueRow:
    size = ratio(trial.size_bytes, record.baseline.size_bytes if record.baseline else None)
    speed, drop = trial.speedup.get("vs_same_runtime_fp32"), trial.drop
    guide = guide_row(trial)
    return TechniqueRow(
        trial=trial,
        best=record.is_best(trial),
        baseline=record.is_baseline(trial),
        size=size,
        speed=speed,
        drop=drop,
        guide=guide,
        size_met=_at_most(size, guide.size) if guide else None,
        speed_met=_at_least(speed, guide.speed) if guide else None,
        drop_met=_at_most(drop.value if drop else None, guide.drop) if guide else None,
    )


def _at_most(value: float | None, limit: float | None) -> bool | None:
    return None if value is None or limit is None else value <= limit


def _at_least(value: Interval | None, limit: float) -> bool | None:
    return None if value is None else value.value >= limit


def _on(name: str, runtimes: list[str]) -> str:
    named = ", ".join(dict.fromkeys(runtime for runtime in runtimes if runtime))
    return f"{name} on {named}" if named else name


def _cost_row(title: str, stages: tuple[Stage, ...], longest: float) -> CostRow:
    segments, start = [], 0.0
    for stage in stages:
        width = 100 * stage.seconds / longest if longest else 0.0
        segments.append(Segment(stage, _stage_kind(stage.name), start, width))
        start += width
    cached = _seconds(tuple(stage for stage in stages if stage.cached))
    paid = _seconds(tuple(stage for stage in stages if not stage.cached))
    return CostRow(title, tuple(segments), paid, cached)


def _stage_kind(name: str) -> str:
    kind = name.partition("(")[0].partition(".")[0].strip()
    return kind if kind in STAGE_KINDS else "other"


def _seconds(stages: tuple[Stage, ...]) -> float:
    return sum(stage.seconds for stage in stages)
