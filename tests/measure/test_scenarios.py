import numpy as np
import pytest

from fettle.core.errors import InputError
from fettle.measure import _timing
from fettle.measure.scenarios import multi_stream, offline, single_stream

MS = 1_000_000


class FakeTime:
    def __init__(self, monkeypatch, costs):
        self.now, self.costs = 0, iter(costs)
        monkeypatch.setattr(_timing, "clock", lambda: self.now)

    def run(self):
        self.now += int(next(self.costs) * MS)


@pytest.fixture
def lognormal():
    rng = np.random.default_rng(0)
    return lambda n: list(rng.lognormal(sigma=0.3, size=n)), lambda q: np.exp(0.3 * q)


def test_a_single_stream_shows_p90_of_all_it_asked(monkeypatch, lognormal):
    draw, true = lognormal
    costs = draw(20_000)
    found = single_stream(FakeTime(monkeypatch, costs).run, seconds=3)
    assert found.percentile == 90
    assert found.latency_ms["n"] >= 1024
    assert found.low <= found.value <= found.high
    assert found.low <= true(1.2816) <= found.high
    assert set(found.to_json()) == {"percentile", "value", "low", "high", "latency_ms"}


def test_slow_requests_still_make_enough_queries(monkeypatch):
    found = single_stream(FakeTime(monkeypatch, iter(lambda: 50, None)).run, seconds=0.1)
    assert (found.latency_ms["n"], found.value) == (1024, 50)


def test_a_multi_stream_shows_p99(monkeypatch, lognormal):
    draw, true = lognormal
    found = multi_stream(FakeTime(monkeypatch, draw(50_000)).run, seconds=10)
    assert found.percentile == 99
    assert found.low <= true(2.3263) <= found.high


def test_few_queries_have_a_value_and_no_bounds(monkeypatch):
    found = multi_stream(FakeTime(monkeypatch, iter([1, 1, 2, 5, 3, 1])).run, 0, queries=4)
    assert (found.value, found.low, found.high) == (5, None, None)


def test_offline_times_the_best_way_afresh():
    made = []

    def make(batch):
        made.append(batch)
        return lambda: sum(range(2000))

    found = offline(make, batches=(1, 64), clients=(1,), seconds=0.1)
    assert made == [1, 64]
    assert found.best.batch == 64  # as long a run for 64 times as many examples
    assert [(load.batch, load.clients) for load in found.tried] == [(1, 1), (64, 1)]
    assert found.best not in found.tried
    assert found.to_json()["throughput"]["value"] == found.best.throughput.value


def test_wrong_settings_are_refused():
    for wrong in ({"batches": ()}, {"clients": (0,)}):
        with pytest.raises(InputError, match="batches and clients"):
            offline(lambda _: int, **wrong)
    with pytest.raises(InputError, match="queries"):
        single_stream(int, queries=0)
