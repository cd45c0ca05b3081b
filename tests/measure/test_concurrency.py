import gc
import itertools
import threading

import numpy as np
import pytest

from fettle.core.errors import CheckFailed, InputError
from fettle.measure import concurrency
from fettle.measure.concurrency import _load, closed_loop

MS = 1_000_000


def spans_of(*pairs):
    return np.array(pairs, dtype=np.int64) * MS


def test_clients_run_at_the_same_time():
    both, calls = threading.Barrier(2), itertools.count()

    def run():
        if next(calls) in (1, 2):  # the first tells what a request costs, alone
            both.wait(timeout=10)

    found = closed_loop([run, run], seconds=0.05, warmup_seconds=0.01)
    assert found.clients == 2
    assert found.latency_ms["n"] > 0
    assert gc.isenabled()


def test_examples_that_end_within_the_windows_are_counted():
    """Two clients, 10 ms a request, 240 ms in 24 windows: two requests end in each."""
    spans = spans_of(*((t, t + 10) for t in range(-20, 260, 10) for _ in "ab"))
    found = _load(spans, 5 * MS, 0.240, clients=2, batch=4)
    assert found.throughput.value == pytest.approx(2 * 4 / 0.010)
    assert (found.throughput.low, found.throughput.high) == pytest.approx((800, 800))
    assert found.latency_ms["n"] == 48
    assert found.latency_ms["p50"] == found.latency_ms["mean"] == 10
    assert found.to_json()["latency_ms"]["batch"] == 4


def test_the_throughputs_interval_is_that_of_windows():
    rng = np.random.default_rng(0)
    hits = []
    for _ in range(150):
        ends = np.sort(rng.uniform(0, 1000, rng.poisson(2000)))
        spans = (np.stack([ends - 1, ends], axis=1) * MS).astype(np.int64)
        found = _load(spans, 0, 1.0, clients=2, batch=1).throughput
        hits.append(found.low <= 2000 <= found.high)
    assert np.mean(hits) >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / 150)


def test_nothing_that_ends_is_told():
    with pytest.raises(CheckFailed, match="more `seconds`"):
        _load(spans_of((0, 5000)), 0, 1.0, 1, 1)


def test_a_loop_in_which_nothing_ended_is_made_longer(monkeypatch):
    given = []

    def work(clients, warmup_seconds, seconds):
        given.append(seconds)
        return (spans_of((1, 2)) if len(given) > 2 else np.empty((0, 2), np.int64)), 0

    monkeypatch.setattr(concurrency._Clients, "work", work)
    assert closed_loop([lambda: None], seconds=0.5).latency_ms["n"] == 1
    assert given == [0.5, 1.0, 2.0]


def test_what_a_client_raises_comes_through():
    calls = iter(range(100))

    def run():
        if next(calls) > 5:
            raise ValueError("engine")

    with pytest.raises(ValueError, match="engine"):
        closed_loop([run, run], seconds=0.05)


def test_wrong_settings_are_refused():
    for wrong in ({"runs": []}, {"batch": 0}, {"seconds": 0}, {"warmup_seconds": -1}):
        with pytest.raises(InputError, match="closed loop"):
            closed_loop(**{"runs": [int], **wrong})
