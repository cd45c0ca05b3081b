"""The stop-watch: blocks of runs, one subject at a time, with the garbage collector at rest."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter_ns as clock

import numpy as np

Run = Callable[[], object]


@contextmanager
def collector_at_rest() -> Iterator[None]:
    """Collect garbage once, then keep the collector off inside the block.

    What lives by then is set aside, so that to collect inside the block takes no half second.
    """
    was_on, freezes = gc.isenabled(), not gc.get_freeze_count()
    gc.collect()
    if freezes:
        gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        if freezes:
            gc.unfreeze()
        if was_on:
            gc.enable()


def time_block(run: Run, runs: int, settle_seconds: float) -> np.ndarray:
    """Settle, then return the duration of each of `runs` calls in milliseconds, shape (runs,)."""
    settle(run, settle_seconds)
    marks = np.empty(runs + 1, dtype=np.int64)
    marks[0] = clock()
    for i in range(1, runs + 1):
        run()
        marks[i] = clock()
    return np.diff(marks) / 1e6


def settle(run: Run, seconds: float, at_least: int = 1) -> list[float]:
    """Run `at_least` times and for at least `seconds`; return each duration in seconds."""
    start = before = clock()
    spent: list[float] = []
    while len(spent) < at_least or before - start < seconds * 1e9:
        run()
        now = clock()
        spent.append((now - before) / 1e9)
        before = now
    return spent


def order_of(count: int, turn: int) -> list[int]:
    """Return the order of `count` subjects in round `turn`.

    It runs backwards every second round and starts one later every second pair of rounds
    (A B C, C B A, B C A, A C B, …), so that no subject keeps its place or its neighbour.
    """
    first = turn // 2 % count
    order = [*range(first, count), *range(first)]
    return order[::-1] if turn % 2 else order


def share_out(total: float, demands: Sequence[float]) -> list[float]:
    """Share `total` among `demands`: who wants little gets it whole, the rest share alike."""
    granted = [0.0] * len(demands)
    waiting = sorted(range(len(demands)), key=lambda i: demands[i])
    for place, i in enumerate(waiting):
        granted[i] = min(demands[i], total / (len(waiting) - place))
        total -= granted[i]
    return granted
