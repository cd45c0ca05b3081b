"""What a row weighs beside its latency: memory, start, energy, and the machine's own bound."""

from __future__ import annotations

from collections.abc import Sequence

from fettle.core.errors import FettleError
from fettle.core.progress import Reporter
from fettle.measure.memory import peak_memory
from fettle.search._bench_entry import Entry


def weigh(entries: Sequence[Entry], memory: bool, progress: Reporter) -> None:
    """Fill what is measured of each entry alone; what can't be measured stays None."""
    if not memory:
        return
    with progress.bar("memory, each in a process of its own", len(entries)) as bar:
        for entry in entries:
            entry.row.update(_memory(entry))
            bar.step(entry.label)


def _memory(entry: Entry) -> dict[str, int]:
    if entry.runtime.takes != "onnx":
        return {}
    try:
        return {"peak_memory_bytes": peak_memory(entry.artifact).peak_bytes}
    except FettleError:
        return {}
