"""How MLPerf Inference asks: single stream, multi-stream and offline.

- *Single stream*: one request at a time, the next when the last is answered; the number is p90.
- *Multi-stream*: the same with requests of 8 examples; the number is p99.
- *Offline*: everything is there at once; the number is examples a second, with the batch and the
  number of clients that the engine likes best.
- *Server*, in `server_load`: requests come when they please; the number is the highest rate whose
  p99 stays within a bound.

These are MLPerf's questions, not its rules: nothing here is a submission, and runs are shorter
than its 60 seconds unless asked.

Source: V. J. Reddi et al., MLPerf Inference Benchmark, ISCA 2020, arXiv 1911.02549, section IV.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fettle.core.errors import InputError
from fettle.core.progress import Reporter, Silent
from fettle.measure import _timing
from fettle.measure._samples import describe_stream
from fettle.measure._timing import Run
from fettle.measure.concurrency import Load, closed_loop

SINGLE_STREAM, MULTI_STREAM = 90, 99
LEAST_QUERIES = 1024
_WARM_SECONDS = 0.2


@dataclass(frozen=True)
class Stream:
    """One request after the other: the percentile asked for, in ms, with its 95 % interval.

    `low` and `high` are None where the samples don't bound it. `latency_ms` is what `summary`
    gives.
    """

    percentile: int
    value: float
    low: float | None
    high: float | None
    latency_ms: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "percentile": self.percentile,
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "latency_ms": self.latency_ms,
        }


@dataclass(frozen=True)
class Offline:
    """The best way to get through much work, timed afresh, and all that was tried before."""

    best: Load
    tried: tuple[Load, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {**self.best.to_json(), "tried": [load.to_json() for load in self.tried]}


def single_stream(run: Run, seconds: float = 5.0, queries: int = LEAST_QUERIES) -> Stream:
    """Time `run`, one example, for at least `seconds` and `queries`; return its p90."""
    return _stream(run, SINGLE_STREAM, seconds, queries)


def multi_stream(run: Run, seconds: float = 5.0, queries: int = LEAST_QUERIES) -> Stream:
    """Time `run`, a batch of 8 by MLPerf's rule, likewise; return its p99."""
    return _stream(run, MULTI_STREAM, seconds, queries)


def offline(
    make: Callable[[int], Run],
    batches: Sequence[int] = (1, 8, 32),
    clients: Sequence[int] = (1, 2),
    seconds: float = 5.0,
    progress: Reporter | None = None,
) -> Offline:
    """Return the highest throughput over batch sizes and numbers of clients.

    A fifth of `seconds` goes to each way; the best is then timed again for `seconds`, because the
    best of several measurements is better than it will be again.

    Args:
        make: returns a thread-safe `run` of one request of so many examples.
        batches: to try.
        clients: to try; all share one run.
        seconds: for the number that counts.
        progress: where a bar goes.

    Raises:
        InputError: no batch, or no number of clients.
    """
    ways = [(batch, count) for batch in batches for count in clients]
    if not ways or min(min(way) for way in ways) < 1:
        raise InputError(f"`offline` expects batches and clients >= 1, got {batches}, {clients}")
    runs = {batch: make(batch) for batch in batches}
    tried = []
    with (progress or Silent()).bar("offline", len(ways) + 1) as bar:
        for batch, count in ways:
            tried.append(closed_loop([runs[batch]] * count, seconds / 5, batch))
            bar.step(f"batch {batch}, {count} clients")
        first = max(tried, key=lambda load: load.throughput.value)
        best = closed_loop([runs[first.batch]] * first.clients, seconds, first.batch)
        bar.step()
    return Offline(replace(best), tuple(tried))


def _stream(run: Run, percentile: int, seconds: float, queries: int) -> Stream:
    if queries < 1 or seconds < 0:
        raise InputError(f"a stream expects queries >= 1, seconds >= 0, got {queries}, {seconds}")
    with _timing.collector_at_rest():
        _timing.settle(run, min(_WARM_SECONDS, seconds))
        spent = np.array(_timing.settle(run, seconds, at_least=queries)) * 1000
    found = describe_stream(spent)
    name = f"p{percentile}"
    value = found[name] if found[name] is not None else float(spent.max())
    low, high = found["intervals"][name] or (None, None)
    return Stream(percentile, value, low, high, found)
