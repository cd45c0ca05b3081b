"""Timing a group under load: several clients at once, and MLPerf's scenarios."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fettle import measure
from fettle.core.errors import KnobError
from fettle.core.progress import Reporter
from fettle.search._bench_entry import MODEL, Entry

SCENARIOS = ("single", "offline", "server")
_ROUNDS = 8
_AGAIN = " (again)"
_SHORTEST = 0.1  # seconds; in less, no request may end within a loop's windows


def load_group(entries: Sequence[Entry], seconds: float, progress: Reporter) -> dict[str, Any]:
    """Fill the rows of `entries` with what closed-loop clients get; return as `time_group` does.

    Half of the time goes to short loops of all entries in turns, from which the ratios come: of
    the time that an example takes, in throughput; the other half to one long loop each.
    """
    labels = [entry.label for entry in entries]
    runs = dict(zip(labels, (entry.runner() for entry in entries), strict=True))
    where = entries[0].where.to_json()
    with measure.watched() as watch:
        samples = _short_loops(runs, entries[0], seconds / 2, progress)
        share = max(seconds / 2 / len(entries), _SHORTEST)
        for entry in entries:
            clients = [runs[entry.label]] * entry.where.concurrency
            load = measure.closed_loop(clients, share, entry.where.batch)
            entry.row["latency_ms"] = {**load.latency_ms, "threads": where["threads"]}
            entry.row["throughput"] = load.throughput.value
    noise = measure.ratio(samples[labels[0]], samples[f"{labels[0]}{_AGAIN}"])
    ratios = []
    for a, b in itertools.combinations(labels, 2):
        found = measure.ratio(samples[a], samples[b])
        differs = measure.differs(found, noise)
        ratios.append({"a": a, "b": b, **found.to_json(), "differs": differs, **where})
    floor = {**noise.to_json(), **where, "warning": measure.too_noisy(noise)}
    return {"ratios": ratios, "noise": floor, "interference": watch.to_json()}


def _short_loops(
    runs: dict[str, Callable[[], object]], first: Entry, seconds: float, progress: Reporter
) -> dict[str, measure.Samples]:
    """Return one number a round and entry: milliseconds of wall clock an example."""
    turns = [*runs.items(), (f"{first.label}{_AGAIN}", runs[first.label])]
    share = max(seconds / _ROUNDS / len(turns), _SHORTEST)
    where = first.where
    spent: dict[str, list[np.ndarray]] = defaultdict(list)
    with progress.bar(f"{where.concurrency} clients", _ROUNDS) as bar:
        for number in range(_ROUNDS):
            for label, run in turns if number % 2 else reversed(turns):
                clients = [run] * where.concurrency
                load = measure.closed_loop(clients, share, where.batch, share / 4)
                spent[label].append(np.array([1000 / max(load.throughput.value, 1e-9)]))
            bar.step()
    return {
        label: measure.Samples(label, where.batch, where.threads, tuple(blocks))
        for label, blocks in spent.items()
    }


def play(
    entries: Sequence[Entry], scenario: str, bound_ms: float, seconds: float, progress: Reporter
) -> dict[str, Any]:
    """Fill the rows of `entries` with what MLPerf's `scenario` asks, one entry after the other.

    Raises:
        KnobError: no such scenario.
    """
    if scenario not in SCENARIOS:
        raise KnobError(f"`--scenario` expects one of {', '.join(SCENARIOS)}, got `{scenario}`")
    with measure.watched() as watch:
        for entry in entries:
            progress.say(f"{scenario}: {entry.label}")
            found = _PLAYS[scenario](entry, bound_ms, seconds / len(entries))
            entry.row["scenario"] = {"name": scenario, **found}
            threads = entry.row["threads"]
            times = found.get("latency_ms")
            entry.row["latency_ms"] = (
                {"batch": entry.where.batch, **times, "threads": threads} if times else None
            )
            entry.row["throughput"] = _rate(entry, found)
            if times is None:
                why = f"no rate was shown to keep p99 within {bound_ms:g} ms"
                entry.row.update(refused=why, refused_kind=MODEL)
    return {"ratios": [], "noise": None, "interference": watch.to_json()}


def _rate(entry: Entry, found: dict[str, Any]) -> float:
    if "rate" in found:
        return float(found["rate"]) * entry.where.batch
    if "throughput" in found:
        return float(found["throughput"]["value"])
    return 1000 * entry.where.batch / float(found["latency_ms"]["mean"])


def _single(entry: Entry, bound_ms: float, seconds: float) -> dict[str, Any]:
    del bound_ms
    return measure.single_stream(entry.runner(), seconds, queries=128).to_json()


def _offline(entry: Entry, bound_ms: float, seconds: float) -> dict[str, Any]:
    del bound_ms
    batches = sorted({1, 8, entry.where.batch})
    clients = sorted({1, entry.where.concurrency})
    return measure.offline(entry.runner_of, batches, clients, seconds / 2).to_json()


def _server(entry: Entry, bound_ms: float, seconds: float) -> dict[str, Any]:
    pool = measure.Pool(entry.runner(), workers=entry.where.concurrency)
    search = measure.Search(seconds=seconds / 10)
    return measure.server(pool, bound_ms, search).to_json()


_PLAYS: dict[str, Callable[[Entry, float, float], dict[str, Any]]] = {
    "single": _single,
    "offline": _offline,
    "server": _server,
}
