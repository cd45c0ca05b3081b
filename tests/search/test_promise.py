"""The probability of a proof, against simulation: draw `select` and `test`, count the passes."""

import numpy as np
import pytest

from fettle.search._promise import LIKELY, promise

SELECT, TEST = 3000, 6000


def draw(rng, n, lost, won):
    """Scores of two models that differ on shares `lost` and `won` of the examples."""
    kind = rng.choice(3, size=n, p=[lost, won, 1 - lost - won])
    return np.where(kind == 1, 0.0, 1.0), np.where(kind == 0, 0.0, 1.0)


def test_it_is_how_often_test_proves():
    """Over models of every loss alike: among those promised p, a share of about p is proven."""
    rng = np.random.default_rng(0)
    promised, passed = [], []
    for _ in range(1200):
        lost, won = rng.uniform(0.0, 0.06), 0.02
        promised.append(promise(*draw(rng, SELECT, lost, won), 0.01, TEST, 0.95))
        reference, scores = draw(rng, TEST, lost, won)
        drop = reference - scores
        passed.append(drop.mean() + 1.645 * drop.std() / TEST**0.5 <= 0.01)
    promised, passed = np.array(promised), np.array(passed)
    for low, high in ((0.05, 0.35), (0.35, 0.65), (0.65, 0.95)):
        inside = (promised > low) & (promised <= high)
        assert inside.sum() > 50
        assert promised[inside].mean() == pytest.approx(passed[inside].mean(), abs=0.12)


def test_identical_scores_are_a_safe_promise_only_where_test_is_large():
    scores = np.ones(1000)
    assert promise(scores, scores, 0.01, 10_000, 0.95) > 0.99
    assert promise(scores, scores, 0.001, 200, 0.95) < 0.5


def test_a_larger_test_or_budget_promises_more():
    rng = np.random.default_rng(1)
    scores = draw(rng, SELECT, 0.02, 0.015)
    by_size = [promise(*scores, 0.01, n, 0.95) for n in (300, 3000, 30_000)]
    by_budget = [promise(*scores, b, 3000, 0.95) for b in (0.002, 0.01, 0.05)]
    assert by_size == sorted(by_size)
    assert by_budget == sorted(by_budget)
    assert by_budget[-1] > LIKELY


def test_a_loss_past_the_budget_promises_nothing():
    rng = np.random.default_rng(2)
    assert promise(*draw(rng, SELECT, 0.1, 0.01), 0.01, TEST, 0.95) < 1e-6
