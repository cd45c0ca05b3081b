"""Spearman's ρ and its pseudo-values, against scipy and against leaving out by hand."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from fettle.tasks import _rank
from fettle.tasks._rank import pseudo_values


def pairs(n, ties, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    y = x + rng.normal(size=n)
    return (np.round(x, 1), np.round(y)) if ties else (x, y)


@pytest.mark.parametrize("ties", [False, True])
def test_their_mean_is_the_correlation(ties):
    x, y = pairs(150, ties)
    assert pseudo_values(x, y).mean() == pytest.approx(spearmanr(x, y).statistic, abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_each_is_what_leaving_it_out_says(ties, monkeypatch):
    monkeypatch.setattr(_rank, "_CHUNK", 100)  # several chunks
    x, y = pairs(40, ties)
    without = [spearmanr(np.delete(x, i), np.delete(y, i)).statistic for i in range(len(x))]
    expected = spearmanr(x, y).statistic + 39 * (np.mean(without) - np.array(without))
    np.testing.assert_allclose(pseudo_values(x, y), expected, atol=1e-9)


def test_their_spread_is_the_standard_error():
    """Against 2,000 fresh samples of the same pairs."""
    n = 200
    rhos = [spearmanr(*pairs(n, False, seed)).statistic for seed in range(2000)]
    found = [pseudo_values(*pairs(n, False, seed)).std(ddof=1) / np.sqrt(n) for seed in range(50)]
    assert np.mean(found) == pytest.approx(np.std(rhos), rel=0.08)


def test_what_never_changes_is_related_to_nothing():
    assert pseudo_values(np.ones(10), np.arange(10.0)).tolist() == [0.0] * 10
    assert pseudo_values(np.array([1.0, 2.0]), np.array([1.0, 2.0])) == pytest.approx([1, 1])
