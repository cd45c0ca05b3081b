"""Throughput and latency with several clients at once.

The loop is closed: each client asks again as soon as it is answered, as a batch job does, or a
thread pool with a full queue. Engines release the GIL while they run, so clients are threads. The
latency under such a load says how long a request takes *while its neighbours run*; how long one
waits in a queue is asked by `server_load.server`.

Example:
    >>> load = closed_loop([lambda: sum(range(999))] * 2, seconds=0.1)
    >>> load.clients
    2
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter_ns as clock
from typing import Any

import numpy as np

from fettle.core.errors import CheckFailed, InputError
from fettle.measure._intervals import mean_interval
from fettle.measure._ratio import Ratio
from fettle.measure._samples import describe
from fettle.measure._timing import Run, collector_at_rest

_WINDOWS = 24
_LEAST_RUNS = 2 * _WINDOWS
_LONGER = (1, 2, 4, 8)


@dataclass(frozen=True)
class Load:
    """What `clients` closed-loop clients got, each asking for `batch` examples at a time.

    `throughput` is in examples a second with its 95 % interval over equal windows of time;
    `latency_ms` is what `summary` gives, of requests that ended within the windows.
    """

    clients: int
    batch: int
    throughput: Ratio
    latency_ms: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "clients": self.clients,
            "batch": self.batch,
            "throughput": self.throughput.to_json(),
            "latency_ms": self.latency_ms,
        }


def closed_loop(
    runs: Sequence[Run], seconds: float = 2.0, batch: int = 1, warmup_seconds: float = 0.2
) -> Load:
    """Let one client for each of `runs` ask in a closed loop, and count for `seconds`.

    Give `[session.run] * 4` for four clients of one session, or four sessions' runs. Where
    requests are so slow that fewer than 48 would end, the time is made longer; where a busy machine
    let none end all the same, all is done again with twice the time, three times at most.

    Raises:
        InputError: no client, a batch below 1, or no time.
        CheckFailed: no request ended in any of these times.
    """
    if not runs or batch < 1 or seconds <= 0 or warmup_seconds < 0:
        raise InputError(
            "a closed loop expects one client or more, batch >= 1 and seconds > 0, got"
            f" {len(runs)} clients, batch {batch}, {seconds} s after {warmup_seconds} s"
        )
    with collector_at_rest():
        start = clock()
        runs[0]()
        cost = (clock() - start) / 1e9
        counted = max(seconds, cost * _LEAST_RUNS / len(runs))
        for more in _LONGER:
            spans, opened = _Clients(runs).work(warmup_seconds + cost, more * counted)
            if (spans[:, 1] >= opened).any():
                break
    return _load(spans, opened, more * counted, len(runs), batch)


class _Clients:
    """Threads that run until a moment comes; each keeps when its runs began and ended."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = runs
        self.until = 0
        self.spans: list[list[tuple[int, int]]] = [[] for _ in runs]
        self.failed: list[BaseException] = []
        self.gate = threading.Barrier(len(runs) + 1)

    def work(self, warmup_seconds: float, seconds: float) -> tuple[np.ndarray, int]:
        """Return begin and end of all runs in ns, shape (n, 2), and when counting opens."""
        threads = [threading.Thread(target=self._loop, args=(i,)) for i in range(len(self.runs))]
        for thread in threads:
            thread.start()
        opened = clock() + int(warmup_seconds * 1e9)
        self.until = opened + int(seconds * 1e9)
        self.gate.wait()
        for thread in threads:
            thread.join()
        if self.failed:
            raise self.failed[0]
        spans = [span for spans in self.spans for span in spans]
        return np.array(spans, dtype=np.int64).reshape(-1, 2), opened

    def _loop(self, number: int) -> None:
        run, spans = self.runs[number], self.spans[number]
        self.gate.wait()
        try:
            end = clock()
            # one run past the end, so that the last window is as busy as the others
            while end < self.until and not self.failed:
                begin = clock()
                run()
                end = clock()
                spans.append((begin, end))
        except BaseException as error:
            self.failed.append(error)


def _load(spans: np.ndarray, opened: int, seconds: float, clients: int, batch: int) -> Load:
    """Count what ended in each window."""
    width = seconds * 1e9 / _WINDOWS
    place = np.floor((spans[:, 1] - opened) / width).astype(int)
    order = np.argsort(spans[:, 1], kind="stable")
    spans, place = spans[order], place[order]
    ms = (spans[:, 1] - spans[:, 0]) / 1e6
    blocks = [ms[place == window] for window in range(_WINDOWS)]
    rates = [np.array([1e9 * batch * len(block) / width]) for block in blocks]
    full = [block for block in blocks if len(block)]
    if not full:
        raise CheckFailed(
            f"no request of {clients} clients ended within {seconds:g} s; give it more `seconds`"
        )
    value, bounds = float(np.mean(rates)), mean_interval(rates)
    assert bounds is not None
    throughput = Ratio(value, max(bounds[0], 0.0), bounds[1])
    return Load(clients, batch, throughput, {**describe(full), "batch": batch})
