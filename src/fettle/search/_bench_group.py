"""Timing a group: all artifacts of one batch, threads and concurrency against each other."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from fettle import measure
from fettle.core.progress import Reporter
from fettle.search._bench_entry import Entry


def time_group(entries: Sequence[Entry], seconds: float, progress: Reporter) -> dict[str, Any]:
    """Fill the rows of `entries` and return `ratios`, `noise` and `interference`.

    The first artifact is timed against itself too: that is the noise floor, below which a ratio
    shows no difference.
    """
    build_seconds = sum(entry.build_seconds for entry in entries)
    plan = measure.Plan.for_budget(seconds, build_seconds)
    rebuilt = plan.builds * build_seconds <= seconds
    subjects = [_timed(entry, rebuilt) for entry in entries]
    first = subjects[0]
    samples = measure.time_interleaved([*subjects, measure.twin_of(first)], plan, progress)
    for entry in entries:
        entry.row["latency_ms"] = measure.summary(samples[entry.label])
        entry.row["throughput"] = measure.throughput(samples[entry.label])
    noise = measure.noise_in(samples, first.label)
    where = entries[0].where.to_json()
    ratios = [
        _ratio(a.label, b.label, samples, noise) | where
        for a, b in itertools.combinations(entries, 2)
    ]
    floor = {**noise.to_json(), **where, "warning": measure.too_noisy(noise)}
    return {"ratios": ratios, "noise": floor, "interference": samples.interference.to_json()}


def _ratio(a: str, b: str, samples: measure.Timing, noise: measure.Ratio) -> dict[str, Any]:
    found = measure.ratio(samples[a], samples[b])
    return {"a": a, "b": b, **found.to_json(), "differs": measure.differs(found, noise)}


def _timed(entry: Entry, rebuilt: bool) -> measure.Subject:
    again = _rebuild(entry) if rebuilt and entry.runtime.takes == "onnx" else None
    where = entry.where.to_json()
    return measure.Subject(entry.label, entry.runner(), where["batch"], where["threads"], again)


def _rebuild(entry: Entry) -> Callable[[], Callable[[], object]]:
    return lambda: entry.runner(entry.build())
