import pytest
from scipy import stats

from fettle.search.strategies._curves import Curves


def test_nothing_seen_twice_leaves_the_prior():
    curves = Curves()
    curves.add("a", 1, 0.2)
    assert curves.exponent == 0.5


def test_the_exponent_is_learned_from_every_pair_of_rungs():
    curves = Curves()
    for shape, loss in (("a", 0.2), ("b", 0.1)):
        for epochs in (1, 4, 16):
            curves.add(shape, epochs, loss / epochs)
    assert curves.exponent == pytest.approx((0.5 + 4) / 5)


def test_losses_that_grow_or_vanish_dont_break_it():
    curves = Curves()
    for epochs, loss in ((1, 0.0), (4, 0.1), (8, -0.1), (9, 0.2), (10, 9.0)):
        curves.add("a", epochs, loss)
    assert curves.exponent == 0.0


def test_a_chance_is_that_of_the_foretold_loss():
    curves = Curves()
    curves.add("a", 1, 0.04)
    assert curves.chance("a", 4, 0.02) == pytest.approx(0.5)
    worse = stats.norm.cdf(-1 / (0.2 / 0.6931471806 + 0.25 * 2))  # ln 2 above it, after ln 4
    assert curves.chance("a", 4, 0.01) == pytest.approx(worse)


def test_who_is_within_the_budget_is_sure_of_it():
    curves = Curves()
    curves.add("a", 3, -0.001)
    assert curves.chance("a", 9, 0.01) == 1.0
    assert curves.chance("a", 1, 0.01) == 1.0


def test_more_epochs_and_a_larger_budget_raise_the_chance():
    curves = Curves()
    curves.add("a", 1, 0.1)
    assert curves.chance("a", 2, 0.01) < curves.chance("a", 20, 0.01) < curves.chance("a", 20, 0.02)
