"""The page that `fettle bench --html` writes: one file that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fettle.report import _format as form
from fettle.report._bench_lines import Group, Line, Span, groups_of, refused_of
from fettle.report._bench_picture import kind_of, picture
from fettle.report._frontier import KINDS
from fettle.report._page import render

_NAMES = {"torch": "PyTorch"}  # eager and compiled
_OPTIONAL = (
    ("fixed_batch", "batch of the file", form.count),
    ("bound_fraction", "of bound", form.share),
    ("peak_memory_bytes", "peak memory", form.size),
    ("resident_memory_bytes", "resident", form.size),
    ("cold_start_ms", "cold start", form.milliseconds),
    ("first_inference_ms", "first inference", form.milliseconds),
    ("energy_joules", "J per example", form.significant),
)


def bench_page(result: Mapping[str, Any]) -> str:
    """Return a benchmark as one HTML document, which tells everything without scripts too."""
    groups = groups_of(result)
    lines = [line for group in groups for line in group.lines]
    kinds = [kind for kind in KINDS if any(kind_of(line) == kind for line in lines)]
    return render(
        "bench.html",
        title=_title(groups),
        sentences=[_sentence(group) for group in groups],
        groups=groups,
        picture=picture(groups),
        kinds=[(kind, _NAMES.get(kind, KINDS[kind])) for kind in kinds],
        extra=[column for column in _OPTIONAL if any(line.row.get(column[0]) for line in lines)],
        refused=refused_of(result),
        absent=dict(result.get("absent") or {}),
        warnings=_warnings(result),
        machine=_machine(result),
        span=span,
        behind=behind,
    )


def span(value: Span | None) -> tuple[str, str]:
    """Return a number and its bounds, in milliseconds."""
    if value is None:
        return form.DASH, ""
    number = form.significant(value.value)
    if value.low is None or value.high is None:
        return number, ""
    return number, f"[{form.significant(value.low)},{form.NB}{form.significant(value.high)}]"


def behind(line: Line) -> tuple[str, str]:
    """Return how many times slower than the fastest, and the bounds of that; or why neither."""
    if line.best:
        return "best", ""
    if line.same:
        return "same", "within the noise"
    if line.behind is None or line.behind.low is None or line.behind.high is None:
        return form.DASH, ""
    found = line.behind
    return form.times(found.value), f"[{found.low:.2f},{form.NB}{found.high:.2f}]"


def _title(groups: Sequence[Group]) -> str:
    subjects = dict.fromkeys(str(line.row["subject"]) for g in groups for line in g.lines)
    return next(iter(subjects)) if len(subjects) == 1 else f"{len(subjects)} artifacts"


def _sentence(group: Group) -> str:
    """Say which is the fastest, and which others can't be told apart from it."""
    best, *others = group.lines
    median = best.latency("p50")
    assert median is not None
    text = f"At {group.title}, {best.name} is the fastest: {form.milliseconds(median.value)}"
    same = [line.name for line in others if line.same]
    if same:
        text += f"; no difference could be shown to {', '.join(same)}"
    slowest = others[-1] if others else None
    if slowest is not None and not slowest.same and slowest.behind is not None:
        text += f"; {form.times(slowest.behind.value)} as fast as {slowest.name}"
    return f"{text}."


def _warnings(result: Mapping[str, Any]) -> list[str]:
    noises = [noise.get("warning") for noise in result.get("noises") or ()]
    said = [*noises, (result.get("interference") or {}).get("warning")]
    return list(dict.fromkeys(str(text) for text in said if text))


def _machine(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    machine = result.get("machine") or {}
    rows = [
        ("processor", str(machine.get("cpu", form.DASH))),
        ("instruction sets", ", ".join(machine.get("isa") or ()) or form.DASH),
        ("threads", str(machine.get("threads", form.DASH))),
    ]
    versions = {**(machine.get("runtimes") or {}), **(machine.get("versions") or {})}
    return rows + [(name, str(version)) for name, version in versions.items()]
