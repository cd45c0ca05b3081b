"""What a row weighs beside its latency: memory, start, and the machine's own bound."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fettle import measure
from fettle.core.errors import FettleError
from fettle.core.progress import Reporter
from fettle.measure.energy import energy_per_example
from fettle.measure.peaks import Peaks, peaks_of
from fettle.measure.roofline import roofline
from fettle.search._bench_entry import Entry

_STARTS = 3
_ONLY_HERE = "its module was made in this process, and a process of its own can't make it again"


def weigh(entries: Sequence[Entry], memory: bool, startup: bool, progress: Reporter) -> None:
    """Fill what fresh processes tell of each entry; `no_memory` says why they can't."""
    if not (memory or startup):
        return
    with progress.bar("memory, each in a process of its own", len(entries)) as bar:
        for entry in entries:
            entry.row.update(_in_a_fresh_process(entry, startup))
            bar.step(entry.label)


def spend(entries: Sequence[Entry], seconds: float) -> str | None:
    """Fill the joules of an example, `seconds` for all entries; return why they can't be had."""
    reason = None
    for entry in entries:
        share = seconds / len(entries)
        joules, reason = energy_per_example(entry.runner(), entry.where.batch, share)
        entry.row["energy_joules"] = joules
    return reason


def bound(entries: Sequence[Entry], progress: Reporter) -> Peaks | None:
    """Fill how fast this machine could run each entry at the most; return its peaks."""
    if not entries:
        return None
    threads = entries[0].row["threads"]
    progress.say("this machine's peaks: measured the first time, which takes half a minute")
    peaks = peaks_of(threads)
    for entry in entries:
        bound_ms = _bound_ms(entry, peaks)
        entry.row["bound_ms"] = bound_ms
        alone = entry.where.concurrency == 1 and entry.row.get("scenario") is None
        if bound_ms is not None and alone:
            entry.row["bound_fraction"] = bound_ms / entry.row["latency_ms"]["p50"]
    return peaks


def _bound_ms(entry: Entry, peaks: Peaks) -> float | None:
    inputs = entry.subject.batch(entry.where.batch)
    assert entry.session is not None
    try:
        return roofline(entry.subject.onnx, entry.session, inputs, peaks).bound_ms or None
    except (FettleError, RuntimeError):  # a shape that can't be known, an engine that can't tell
        return None


def _in_a_fresh_process(entry: Entry, startup: bool) -> dict[str, Any]:
    if entry.runtime.takes != "onnx" and entry.subject.source is None:
        return {"no_memory": _ONLY_HERE}
    try:
        if not startup:
            return _memory(measure.peak_memory(entry.artifact))
        found = measure.startup_of(entry.artifact, times=_STARTS)
    except FettleError as error:
        return {"no_memory": str(error)}
    parts = found.parts
    return {
        **_memory(found.footprint),
        "cold_start_ms": parts["cold_start"].value,
        "first_inference_ms": parts["first_inference"].value,
        "startup": found.to_json(),
    }


def _memory(found: measure.Footprint) -> dict[str, int | None]:
    return {
        "peak_memory_bytes": found.peak_bytes,
        "resident_memory_bytes": found.served_bytes,
    }
