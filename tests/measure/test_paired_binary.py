"""The level is enumerated where that is feasible, and simulated where it isn't."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from fettle.measure import _paired_binary
from fettle.measure._paired_binary import p_value, score_statistic, upper_bound

ALPHA = 0.05


def rejected(n, delta):
    """All pairs (b, c) at which the test says that the drop is smaller than `delta`."""
    pairs = [(b, c) for b in range(n + 1) for c in range(n + 1 - b)]
    return [pair for pair in pairs if p_value(*pair, n, delta, ALPHA) <= ALPHA]


def probability(pairs, n, delta, q):
    """The exact trinomial probability of `pairs` at this drop and rate of disagreement."""
    rates = [(q + delta) / 2, (q - delta) / 2, 1 - q]
    b, c = np.array(pairs).T
    counts = np.stack([b, c, n - b - c], axis=1)
    return stats.multinomial.pmf(counts, n, rates).sum()


@pytest.mark.parametrize(("n", "delta"), [(12, 0.3), (20, 0.2), (25, 0.1), (25, 0.0), (20, -0.2)])
def test_the_level_is_kept_exactly(n, delta):
    pairs = rejected(n, delta)
    rates = np.linspace(abs(delta) + 1e-9, 1 - 1e-9, 120)
    level = [probability(pairs, n, delta, q) for q in rates]
    assert max(level) <= ALPHA
    assert max(level) > 0.03  # and is not thrown away


def test_the_level_is_kept_past_the_edge_too():
    """A larger drop than the budget passes even less often than one on it."""
    pairs = rejected(20, 0.2)
    for drop in (0.25, 0.3, 0.4):
        rates = np.linspace(drop + 1e-9, 1 - 1e-9, 60)
        assert max(probability(pairs, 20, drop, q) for q in rates) <= ALPHA


def test_the_bound_and_the_test_say_the_same():
    n, delta = 14, 0.2
    by_bound = [
        (b, c)
        for b, c in itertools.product(range(n + 1), repeat=2)
        if b + c <= n and upper_bound(b, c, n, ALPHA) <= delta
    ]
    assert by_bound == rejected(n, delta)


def test_the_statistic_uses_the_maximum_likelihood_rate():
    """Tango's closed form against a maximisation of the likelihood by brute force."""
    b, c, n, delta = 7, 3, 60, 0.1
    p_c = np.linspace(1e-6, (1 - delta) / 2 - 1e-6, 200_001)
    likelihood = (
        b * np.log(p_c + delta) + c * np.log(p_c) + (n - b - c) * np.log(1 - 2 * p_c - delta)
    )
    best = p_c[likelihood.argmax()]
    expected = (b - c - n * delta) / math.sqrt(n * (2 * best + delta - delta**2))
    found = score_statistic(np.array([b]), np.array([c]), n, delta)[0]
    assert found == pytest.approx(expected, rel=1e-4)


def test_without_a_drop_to_allow_it_is_mcnemars_statistic():
    b, c = np.array([12, 5]), np.array([4, 5])
    np.testing.assert_allclose(score_statistic(b, c, 80, 0.0), (b - c) / np.sqrt(b + c))


@pytest.mark.parametrize("n", [1, 10, 100, 1000])
def test_no_disagreement_leaves_the_exact_zero_bound(n):
    """Nothing seen of n: P(none) = (1 − δ)^n; γ of the level goes to the interval of q."""
    gamma = ALPHA / 50
    assert upper_bound(0, 0, n, ALPHA) == pytest.approx(1 - (ALPHA - gamma) ** (1 / n), abs=2e-6)


def test_the_statistic_falls_as_more_are_won():
    for b, delta in itertools.product((0, 3, 20), (0.001, 0.05, 0.3)):
        z = score_statistic(np.full(60, b), np.arange(60), 100, delta)
        assert (np.diff(z) < 1e-12).all()


@pytest.mark.parametrize(("b", "c", "n"), [(3, 1, 300), (30, 35, 1000), (120, 100, 10_000)])
def test_a_finer_search_for_the_worst_rate_finds_nothing_worse(b, c, n, monkeypatch):
    bound = upper_bound(b, c, n, ALPHA)
    monkeypatch.setattr(_paired_binary, "_GRID", 1001)
    assert p_value(b, c, n, bound, ALPHA) <= ALPHA + 1e-4


@pytest.mark.parametrize(("b", "c", "n"), [(120, 100, 10_000), (500, 480, 10_000)])
def test_with_many_examples_it_is_near_the_normal_bound(b, c, n):
    drop = (b - c) / n
    wald = drop + 1.645 * math.sqrt(((b + c) / n - drop**2) / n)
    assert wald - 1e-5 <= upper_bound(b, c, n, ALPHA) <= 1.05 * wald


def test_extremes():
    assert upper_bound(1, 0, 1, ALPHA) == 1
    assert upper_bound(50, 0, 50, ALPHA) == 1
    assert upper_bound(0, 50, 50, ALPHA) < -0.8
