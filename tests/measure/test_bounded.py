"""Gaffke's bound, against draws, against Clopper and Pearson, and against what is true."""

import numpy as np
import pytest
from scipy import stats

from fettle.measure._bounded import lower_mean, upper_mean


def drawn(values, most, alpha, many=200_000):
    """The bound by its definition: weights drawn, the quantile taken."""
    rng = np.random.default_rng(0)
    points = np.append(np.sort(values), most)
    weights = rng.exponential(size=(many, len(points)))
    return np.quantile(weights @ points / weights.sum(1), 1 - alpha)


SAMPLES = {
    "uniform": lambda rng: rng.random(30),
    "skewed": lambda rng: rng.beta(0.2, 5, 40),
    "two": lambda rng: rng.random(2),
    "differences": lambda rng: rng.normal(0.01, 0.1, 60).clip(-1, 1),
}


@pytest.mark.parametrize("kind", SAMPLES)
@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_it_is_the_quantile_of_weighted_means(kind, alpha):
    values = SAMPLES[kind](np.random.default_rng(1))
    assert upper_mean(values, 1.0, alpha) == pytest.approx(drawn(values, 1.0, alpha), abs=3e-3)


@pytest.mark.parametrize(("right", "n"), [(0, 300), (3, 100), (40, 100), (99, 100)])
def test_of_zeros_and_ones_it_is_clopper_and_pearsons(right, n):
    values = np.repeat([1.0, 0.0], [right, n - right])
    exact = stats.beta.ppf(0.95, right + 1, n - right)
    assert upper_mean(values, 1.0, 0.05) == pytest.approx(exact, rel=5e-3)


def test_nothing_seen_is_no_proof_of_nothing():
    """ln 20 / 300: a hundredth is just proven by 300 examples that don't differ."""
    assert upper_mean(np.zeros(300), 1.0, 0.05) == pytest.approx(1 - 0.05 ** (1 / 300), rel=5e-3)
    assert upper_mean(np.zeros(300), 1.0, 0.05) < 0.01 < upper_mean(np.zeros(290), 1.0, 0.05)


def test_for_many_it_is_the_normal_bound():
    values = np.random.default_rng(0).beta(2, 8, 20_000)
    normal = values.mean() + 1.645 * values.std() / np.sqrt(len(values))
    assert upper_mean(values, 1.0, 0.05) == pytest.approx(normal, abs=2e-4)


def test_the_lower_bound_is_its_mirror():
    values = np.random.default_rng(0).random(50)
    assert lower_mean(values, 0.0, 0.05) == pytest.approx(1 - upper_mean(1 - values, 1.0, 0.05))
    assert lower_mean(np.ones(5), -1.0, 0.05) < 0.2


def test_what_is_as_large_as_can_be_is_its_own_bound():
    assert upper_mean(np.ones(4), 1.0, 0.05) == pytest.approx(1)
    assert upper_mean(np.full(4, 1 - 1e-13), 1.0, 0.05) == pytest.approx(1)
    assert upper_mean(np.full(4, 1 - 1e-6), 1.0, 0.05) == pytest.approx(1)


RARE = {
    "rare losses": lambda rng, n: (rng.random(n) < 0.01) * 1.0,
    "rare of any size": lambda rng, n: (rng.random(n) < 0.03) * rng.random(n),
    "skewed": lambda rng, n: rng.beta(0.1, 5, n),
    "lognormal": lambda rng, n: np.minimum(0.005 * np.exp(1.5 * rng.normal(size=n)), 1),
}


@pytest.mark.parametrize("kind", RARE)
@pytest.mark.parametrize("n", [100, pytest.param(400, marks=pytest.mark.slow)])
def test_the_true_mean_is_past_it_one_time_in_twenty_at_most(kind, n):
    draw, rng, studies = RARE[kind], np.random.default_rng(3), 250
    true = draw(np.random.default_rng(4), 2_000_000).mean()
    past = np.mean([upper_mean(draw(rng, n), 1.0, 0.05) < true for _ in range(studies)])
    assert past <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / studies)
