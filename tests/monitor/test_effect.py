"""The effect where callers are drawn by lot: its martingale, its interval, what it is spared."""

import math

import numpy as np
import pytest

from fettle.monitor._effect import Bets, Rates

THRESHOLD = -math.log(0.05)


def drawn(n, rate_a, effect=0.0, share=0.5, seed=0):
    """Arms and hits of `n` callers; `rate_a` may be an array."""
    rng = np.random.default_rng(seed)
    arms = (rng.random(n) < share).astype(int)
    return arms, (rng.random(n) < rate_a + effect * arms).astype(float)


def slowly(arms, hits, share, margin, delta):
    """The same capital, written as the definition says it, caller by caller."""
    effects = margin * np.array([s * t for t in (0.5, 1, 2, 4, 8, 16) for s in (-1, 1)])
    capital, rate = np.ones(12), 0.5
    for at, (arm, hit) in enumerate(zip(arms, hits, strict=True)):
        if at in (0, *(32 * 2**k for k in range(20))):
            rate = (hits[:at].sum() + 1) / (at + 2)
            most = 0.9 / (1 / min(share, 1 - share) + 1)
            bets = np.clip(effects * share * (1 - share) / (rate * (1 - rate)), -most, most)
        score = (hit - rate) * (1 / share if arm else -1 / (1 - share))
        capital *= 1 + bets * (score - delta)
    return math.log(capital.mean())


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_counts_are_all_that_is_needed(share):
    arms, hits = drawn(300, 0.8, 0.05, share, seed=1)
    bets = Bets(share, 0.01, 0.05)
    for start in range(0, 300, 37):
        bets.add(arms[start : start + 37], hits[start : start + 37])
    for delta in (-0.2, 0.0, 0.05):
        assert bets.after(delta, 0) == pytest.approx(slowly(arms, hits, share, 0.01, delta))


def test_the_path_is_what_is_known_after_each_caller():
    arms, hits = drawn(200, 0.9, seed=2)
    bets = Bets(0.5, 0.01, 0.05)
    bets.add(arms[:50], hits[:50])
    path = bets.path(arms[50:], hits[50:])
    for n in (51, 64, 65, 130, 200):
        assert path[n - 51] == pytest.approx(slowly(arms[:n], hits[:n], 0.5, 0.01, 0.0))
    assert bets.path(arms[50:], hits[50:]) == pytest.approx(path)  # looking changes nothing


def test_what_is_bet_has_a_mean_of_one():
    """Under no effect the capital's mean stays 1: over all that may happen in five callers."""
    for share, rate in ((0.5, 0.5), (0.2, 0.9)):
        mean = 0.0
        for code in range(4**5):
            cells = [(code >> 2 * at) & 3 for at in range(5)]
            arms, hits = np.array([c & 1 for c in cells]), np.array([c >> 1 for c in cells], float)
            chance = np.prod(np.where(arms, share, 1 - share) * np.where(hits, rate, 1 - rate))
            mean += chance * math.exp(slowly(arms, hits, share, 0.05, 0.0))
        assert mean == pytest.approx(1.0)


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_equal_models_are_seldom_told_apart_even_where_both_drift(share):
    crossed, rate = 0, 0.9 - 0.4 * np.linspace(0, 1, 1500) ** 2
    for seed in range(200):
        path = Bets(share, 0.02, 0.05).path(*drawn(1500, rate, 0.0, share, seed))
        crossed += bool((path >= THRESHOLD).any())
    assert crossed / 200 <= 0.1  # 0.05, and three standard errors


def test_the_interval_holds_the_effect_at_every_look():
    missed = 0
    for seed in range(60):
        bets, (arms, hits) = Bets(0.5, 0.02, 0.05), drawn(1600, 0.85, 0.05, 0.5, seed)
        for start in range(0, 1600, 400):
            bets.add(arms[start : start + 400], hits[start : start + 400])
            _, low, high = bets.interval()
            if not low <= 0.05 <= high:
                missed += 1
                break
    assert missed / 60 <= 0.13


def test_lots_are_worth_half_of_the_callers():
    by_lot, by_rates = [], []
    for seed in range(20):
        arms, hits = drawn(8_000, 0.9, -0.05, 0.5, seed)
        for effect, found in ((Bets(0.5, 0.01, 0.05), by_lot), (Rates(0.05), by_rates)):
            path = effect.path(arms, hits) >= THRESHOLD
            found.append(path.argmax() if path.any() else len(path))
    assert np.mean(by_lot) < 0.75 * np.mean(by_rates)


def test_the_interval_agrees_with_the_test():
    bets, (arms, hits) = Bets(0.5, 0.01, 0.05), drawn(6000, 0.85, 0.06, seed=4)
    assert (bets.path(arms, hits) >= THRESHOLD)[-1]
    bets.add(arms, hits)
    estimate, low, _ = bets.interval()
    assert 0 < low < estimate
    assert estimate == pytest.approx(0.06, abs=0.03)


def test_nothing_is_known_of_nobody():
    assert Bets(0.5, 0.01, 0.05).interval() == (None, -1.0, 1.0)
    empty = np.zeros(0)
    assert Bets(0.5, 0.01, 0.05).path(empty.astype(int), empty).shape == (0,)


@pytest.mark.parametrize("hit", [0.0, 1.0])
def test_rates_at_the_edge_stay_numbers(hit):
    bets = Bets(0.05, 0.05, 0.05)
    arms, _ = drawn(4000, 0.5, 0.0, 0.05)
    bets.add(arms, np.full(4000, hit))
    _, low, high = bets.interval()
    assert -1 <= low <= 0 <= high <= 1
    assert np.isfinite(bets.after(0.0, 10.0))
