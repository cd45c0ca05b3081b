"""Confidence sequences: against integrals, and against simulation with a look at every step."""

import numpy as np
import pytest
from scipy import integrate, optimize, special, stats

from fettle.core.errors import InputError
from fettle.monitor.sequential import (
    Interval,
    Tally,
    difference,
    difference_log_evidence,
    difference_side,
    log_evidence,
    proportion,
)

RUNS, STEPS = 2000, 1500
ALLOWED = 0.05


def runs(rate, seed, runs=RUNS, steps=STEPS):
    """Return hits so far and requests so far, shape (runs, steps) and (steps,)."""
    rng = np.random.default_rng(seed)
    return np.cumsum(rng.random((runs, steps)) < rate, axis=1), np.arange(1, steps + 1)


def share_that_ever(crossed):
    return crossed.any(axis=1).mean()


@pytest.mark.parametrize(("hits", "n", "rate"), [(0, 5, 0.3), (3, 10, 0.5), (2.5, 7, 0.1)])
def test_evidence_is_the_mixture_s_integral(hits, n, rate):
    def likelihood(p):
        return p**hits * (1 - p) ** (n - hits)

    mixed, _ = integrate.quad(
        lambda t: likelihood(np.sin(t) ** 2) * 2 / np.pi, 0, np.pi / 2, epsabs=1e-14
    )  # p = sin² t has the arcsine law, which is Beta(½, ½)
    assert log_evidence(hits, n, rate) == pytest.approx(np.log(mixed / likelihood(rate)), rel=1e-6)


@pytest.mark.parametrize("rate", [0.5, 0.1, 0.01, 0.001])
def test_at_most_alpha_of_runs_ever_leave_the_interval(rate):
    hits, n = runs(rate, seed=int(rate * 1000))
    assert share_that_ever(log_evidence(hits, n, rate) >= np.log(1 / ALLOWED)) <= ALLOWED


def test_an_interval_for_a_fixed_moment_would_be_left_far_more_often():
    hits, n = runs(0.5, seed=1)
    z = np.abs(hits / n - 0.5) / np.sqrt(0.25 / n)
    assert share_that_ever((z > 1.96)[:, 20:]) > 0.3  # what these are for


def test_shares_of_hits_are_covered_too():
    rng = np.random.default_rng(2)
    hits = np.cumsum(rng.beta(0.2, 1.8, (RUNS, STEPS)), axis=1)  # mean 0.1, from 0 to 1
    evidence = log_evidence(hits, np.arange(1, STEPS + 1), 0.1)
    assert share_that_ever(evidence >= np.log(1 / ALLOWED)) <= ALLOWED


def test_a_rate_that_moves_below_a_limit_is_never_said_to_pass_it():
    rng = np.random.default_rng(3)
    rates = 0.05 * (1 + np.sin(np.arange(STEPS) / 50)) / 2  # from 0 to the limit
    hits, n = np.cumsum(rng.random((RUNS, STEPS)) < rates, axis=1), np.arange(1, STEPS + 1)
    above = (hits / n > 0.05) & (log_evidence(hits, n, 0.05) >= np.log(1 / ALLOWED))
    assert share_that_ever(above) <= ALLOWED


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (1, 1), (0, 100), (3, 50), (50, 50), (40, 2000)])
def test_ends_are_where_the_evidence_reaches_the_threshold(hits, n):
    found = proportion(hits, n)
    assert found.low <= hits / n <= found.high
    for end, extreme in ((found.low, 0.0), (found.high, 1.0)):
        if end != extreme:
            assert log_evidence(hits, n, end) == pytest.approx(np.log(20), abs=1e-6)


def test_bounds_grow_with_the_hits():
    ends = np.array([proportion(hits, 60)[1:] for hits in range(61)])
    assert (np.diff(ends, axis=0) >= 0).all()


def test_ends_are_the_roots_that_scipy_finds():
    def off(p):
        mixed = special.betaln(40.5, 1960.5) - np.log(np.pi)
        return mixed - 40 * np.log(p) - 1960 * np.log1p(-p) - np.log(20)

    found = proportion(40, 2000)
    assert found.low == pytest.approx(optimize.brentq(off, 1e-6, 0.02, xtol=1e-12), abs=1e-9)
    assert found.high == pytest.approx(optimize.brentq(off, 0.02, 0.5, xtol=1e-12), abs=1e-9)


def test_it_is_wider_than_the_exact_interval_of_one_moment():
    low = stats.beta.ppf(0.025, 40, 1961)
    high = stats.beta.ppf(0.975, 41, 1960)
    found = proportion(40, 2000)
    assert found.low < low < high < found.high


def test_nothing_seen_says_nothing():
    assert proportion(0, 0) == Interval(None, 0.0, 1.0)
    assert difference(Tally(), Tally(1, 1)) == Interval(None, -1.0, 1.0)
    assert Tally().interval().side(0.5) == "open"


def test_sides():
    assert Interval(0.2, 0.1, 0.3).side(0.05) == "above"
    assert Interval(0.2, 0.1, 0.3).side(0.35) == "below"
    assert Interval(0.2, 0.1, 0.3).side(0.3) == "open"


@pytest.mark.parametrize("delta", [-0.3, -0.02, 0.0, 0.1, 0.45])
@pytest.mark.parametrize(("first", "second"), [((5, 40), (9, 30)), ((0, 10), (7, 7))])
def test_the_difference_s_evidence_is_the_least_over_pairs(first, second, delta):
    def both(p):
        return float(log_evidence(*first, p) + log_evidence(*second, p + delta))

    ends = max(0.0, -delta) + 1e-12, min(1.0, 1 - delta) - 1e-12
    least = optimize.minimize_scalar(both, bounds=ends, method="bounded", options={"xatol": 1e-12})
    least = min(least.fun, both(ends[0]), both(ends[1]))
    found = difference_log_evidence(Tally(*first), Tally(*second), delta)
    assert found == pytest.approx(least, rel=1e-5, abs=1e-5)


def equal_evidence(first, m, second, n):
    """What speaks against equal rates, in closed form: the pooled rate is the best pair."""
    pooled = (first + second) / (m + n)
    hits, misses = first + second, m + n - first - second
    mixed = special.betaln(0.5 + first, 0.5 + m - first) + special.betaln(
        0.5 + second, 0.5 + n - second
    )
    likelihood = special.xlogy(hits, pooled) + special.xlogy(misses, 1 - pooled)
    return mixed - 2 * np.log(np.pi) - likelihood


@pytest.mark.parametrize(("rate", "split"), [(0.5, 0.5), (0.05, 0.1), (0.01, 0.5)])
def test_at_most_alpha_of_a_a_runs_ever_tell_the_arms_apart(rate, split):
    rng = np.random.default_rng(int(rate * 1000))
    hit = rng.random((RUNS, STEPS)) < rate
    b = rng.random((RUNS, STEPS)) < split
    n = np.cumsum(b, axis=1)
    second, first = np.cumsum(hit & b, axis=1), np.cumsum(hit & ~b, axis=1)
    evidence = equal_evidence(first, np.arange(1, STEPS + 1) - n, second, n)
    assert share_that_ever(evidence >= np.log(1 / ALLOWED)) <= ALLOWED
    for run in range(5):  # and the library's own number is this one
        at = (Tally(*(int(x[run, -1]) for x in pair)) for pair in ((first, STEPS - n), (second, n)))
        assert difference_log_evidence(*at, 0.0) == pytest.approx(evidence[run, -1], abs=1e-6)


def test_a_true_difference_is_found_and_held():
    rng = np.random.default_rng(7)
    found = [
        difference(Tally(rng.binomial(4000, 0.02), 4000), Tally(rng.binomial(1000, 0.08), 1000))
        for _ in range(100)
    ]
    assert np.mean([each.low <= 0.06 <= each.high for each in found]) >= 0.95
    assert np.mean([each.side(0.0) == "above" for each in found]) > 0.9


@pytest.mark.parametrize("limit", [-1.0, -0.2, 0.0, 0.0101, 0.02, 0.3, 1.0])
@pytest.mark.parametrize("second", [(0, 0), (0, 900), (30, 900), (900, 900)])
def test_the_side_alone_is_the_interval_s(limit, second):
    first, second = Tally(5, 2000), Tally(*second)
    assert difference_side(first, second, limit) == difference(first, second).side(limit)


def test_the_arms_changing_places_changes_the_sign():
    one, other = Tally(3, 50), Tally(20, 90)
    there, back = difference(one, other), difference(other, one)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-9)


@pytest.mark.parametrize(("m", "n"), [(1, 1), (5, 5), (3, 200)])
def test_extremes_end_where_a_difference_can(m, n):
    assert difference(Tally(0, m), Tally(n, n)).high == 1.0
    assert difference(Tally(m, m), Tally(0, n)).low == -1.0


@pytest.mark.parametrize("wrong", [-0.1, 1.1, float("nan"), float("inf")])
def test_hits_are_shares(wrong):
    with pytest.raises(InputError, match="from 0 to 1"):
        Tally().add(wrong)


@pytest.mark.parametrize(
    ("hits", "n", "alpha"), [(-1, 5, 0.05), (6, 5, 0.05), (1, 5, 0), (1, 5, 1)]
)
def test_wrong_counts_and_levels(hits, n, alpha):
    with pytest.raises(InputError, match="expects a number"):
        proportion(hits, n, alpha)


def test_a_tally_counts():
    tally = Tally()
    for hit in (True, False, 0.5):
        tally.add(hit)
    assert (tally.hits, tally.n) == (1.5, 3)
    assert tally.interval(0.1) == proportion(1.5, 3, 0.1)
