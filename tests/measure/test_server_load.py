import heapq
import json
import threading
from dataclasses import dataclass
from math import exp, factorial

import numpy as np
import pytest
from scipy import optimize

from fettle.core.errors import InputError
from fettle.measure.server_load import Pool, Search, poisson, server

D = 0.004  # seconds


@dataclass
class Simulated:
    """A service of `workers` whose service times are drawn by `draw(rng, n)`, in seconds."""

    draw: object
    workers: int = 1
    seed: int = 0

    def cost(self):
        return float(self.draw(np.random.default_rng(99), 20_000).mean())

    def play(self, due, give_up_seconds):
        self.seed += 1
        served = self.draw(np.random.default_rng(self.seed), len(due))
        free = [0.0] * self.workers
        latency = np.full(len(due), np.inf)
        for i, (arrival, service) in enumerate(zip(due, served, strict=True)):
            end = max(heapq.heappop(free), arrival) + service
            heapq.heappush(free, end)
            latency[i] = end - arrival
            if latency[i] > give_up_seconds:
                break
        return latency


def always(seconds):
    return lambda _, n: np.full(n, seconds)


def exponential(seconds):
    return lambda rng, n: rng.exponential(seconds, n)


def waits_at_most(t, rate, seconds):
    """M/D/1: P(wait <= t), by A. K. Erlang (1909)."""
    k = int(t // seconds)
    terms = (
        (rate * (i * seconds - t)) ** i / factorial(i) * exp(-rate * (i * seconds - t))
        for i in range(k + 1)
    )
    return (1 - rate * seconds) * sum(terms)


def rate_of_md1(bound, seconds, share=0.99):
    """Return the rate at which the latency of M/D/1 is within `bound` for `share` of requests."""
    over = lambda rate: waits_at_most(bound - seconds, rate, seconds) - share  # noqa: E731
    return optimize.brentq(over, 1e-6 / seconds, (1 - 1e-6) / seconds)


def rate_of_mm1(bound, seconds, share=0.99):
    """M/M/1: latency is exponential with rate mu - lambda."""
    return 1 / seconds + np.log(1 - share) / bound


class FakeClock:
    """A clock that moves only by sleeping and working."""

    def __init__(self, costs):
        self.time, self.costs = 100.0, iter(costs)

    def now(self):
        return self.time

    def sleep(self, seconds):
        self.time += seconds

    def run(self):
        self.time += next(self.costs)


def pool_of(clock):
    return Pool(clock.run, 1, clock.now, clock.sleep)


def test_the_reference_is_right_itself():
    """Erlang's formula against simulation: the share of waits within a time."""
    service, rate = Simulated(always(D)), 0.7 / D
    waits = service.play(poisson(rate, 200_000, 0), np.inf) - D
    for t in (0.5 * D, 2.5 * D, 7.2 * D):
        assert np.mean(waits <= t) == pytest.approx(waits_at_most(t, rate, D), abs=0.005)


def test_latency_counts_from_when_a_request_was_due():
    clock = FakeClock([1, 5, 1, 1])
    latency = pool_of(clock).play(np.array([2.0, 4.0, 5.0, 20.0]), np.inf)
    np.testing.assert_allclose(latency, [1, 5, 5, 1])


def test_a_stall_is_seen_by_all_who_waited_for_it():
    """Coordinated omission would report one slow request of a thousand."""
    due = np.arange(1000) * 0.01
    stall = [0.001] * 100 + [1.0] + [0.001] * 899
    latency = pool_of(FakeClock(stall)).play(due, np.inf)
    assert np.sum(latency > 0.1) > 90
    np.testing.assert_allclose(latency[:100], 0.001)


def test_the_pool_is_the_queue_that_theory_speaks_of():
    due, clock = poisson(0.8 / D, 3000, 1), FakeClock(iter(lambda: D, None))
    np.testing.assert_allclose(
        pool_of(clock).play(due, np.inf), Simulated(always(D)).play(due, np.inf), atol=1e-9
    )


def test_a_lost_service_is_given_up():
    latency = pool_of(FakeClock(iter(lambda: 1, None))).play(np.zeros(1000), 5)
    assert np.sum(np.isfinite(latency)) == 6
    assert pool_of(FakeClock(iter(lambda: 1, None))).cost() == pytest.approx(1)


@pytest.mark.parametrize("bound", [2, 3, 5, 10])
@pytest.mark.parametrize("seed", [0, 100])
def test_the_rate_of_a_deterministic_service(bound, seed):
    """Shown to hold, so below the true rate; and not by more than its precision and its doubt."""
    true = rate_of_md1(bound * D, D)
    found = server(Simulated(always(D), seed=seed), 1000 * bound * D, Search(seed=seed))
    assert 0.7 * true <= found.rate <= 1.02 * true
    assert found.rate < found.failed_at <= 1 / D
    assert found.latency_ms["p99"] <= found.bound_ms


def test_more_time_finds_a_higher_rate():
    true = rate_of_md1(5 * D, D)
    found = server(Simulated(always(D)), 5000 * D, Search(queries=20_000))
    assert 0.92 * true <= found.rate <= 1.02 * true


def test_the_rate_of_an_exponential_service():
    true = rate_of_mm1(10 * D, D)
    found = server(Simulated(exponential(D)), 10_000 * D, Search(queries=8000))
    assert 0.75 * true <= found.rate <= 1.05 * true


def test_more_workers_bear_a_higher_rate():
    found = [server(Simulated(always(D), workers=w), 3000 * D).rate for w in (1, 2)]
    assert found[1] > 2 * found[0]


def test_a_bound_below_the_service_time_is_never_met():
    found = server(Simulated(always(D)), 500 * D)
    assert (found.rate, found.latency_ms) == (0, None)
    assert {trial.answer for trial in found.trials} == {"fails"}


def test_the_answer_is_json_without_infinities():
    found = server(Simulated(always(D)), 500 * D).to_json()
    json.dumps(found, allow_nan=False)
    assert {"rate", "failed_at", "bound_ms", "workers", "latency_ms", "trials"} == set(found)


def test_arrivals_are_poisson_and_seeded():
    due = poisson(50, 100_000, seed=3)
    gaps = np.diff(due)
    assert gaps.mean() == pytest.approx(1 / 50, rel=0.02)
    assert gaps.std() == pytest.approx(1 / 50, rel=0.02)
    np.testing.assert_array_equal(due, poisson(50, 100_000, seed=3))
    np.testing.assert_allclose(2 * poisson(100, 10, 0), poisson(50, 10, 0))


def test_real_workers_share_the_line():
    seen, both = set(), threading.Barrier(2)

    def run():
        both.wait(timeout=10)  # passes only when two workers run at once
        seen.add(threading.get_ident())

    latency = Pool(run, workers=2).play(np.zeros(8), np.inf)
    assert len(seen) == 2
    assert np.isfinite(latency).all()


def test_what_a_request_raises_comes_through():
    def fails():
        raise ValueError("engine")

    with pytest.raises(ValueError, match="engine"):
        Pool(fails, workers=2).play(np.zeros(4), np.inf)


def test_wrong_settings_are_refused():
    for bound in (0, -1, float("nan")):
        with pytest.raises(InputError, match="bound_ms"):
            server(Simulated(always(D)), bound)
    for wrong in ({"precision": 0}, {"queries": 10}, {"seconds": -1}):
        with pytest.raises(InputError, match="precision"):
            Search(**wrong)
