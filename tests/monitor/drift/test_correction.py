"""Corrections against independent implementations, and by what they promise."""

import numpy as np
import pytest
from scipy import stats

from fettle.core.errors import InputError
from fettle.monitor.drift.correction import benjamini_hochberg, holm


def test_benjamini_hochberg_is_scipys():
    p = np.random.default_rng(0).random(40) ** 3
    assert benjamini_hochberg(p) == pytest.approx(stats.false_discovery_control(p))


def test_holm_is_its_definition():
    p = np.random.default_rng(1).random(30) ** 3
    order = np.argsort(p)
    stepwise, largest = np.empty(30), 0.0
    for at, place in enumerate(order):
        largest = max(largest, min(1.0, (30 - at) * p[place]))
        stepwise[place] = largest
    assert holm(p) == pytest.approx(stepwise)


def test_holm_keeps_the_chance_of_any_mistake():
    p = np.random.default_rng(2).random((4000, 20))
    any_alarm = np.mean([(holm(row) <= 0.05).any() for row in p])
    assert any_alarm == pytest.approx(0.05, abs=0.01)


def test_nothing_to_correct():
    assert len(holm([])) == len(benjamini_hochberg([])) == 0


@pytest.mark.parametrize("wrong", [[1.2], [-0.1], [np.nan]])
def test_what_is_no_chance_is_refused(wrong):
    with pytest.raises(InputError, match="p-values"):
        holm(wrong)
