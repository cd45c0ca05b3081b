"""The levels of several looks at `test`."""

import itertools

import pytest

from fettle.core.verdict import Budget
from fettle.search.looks import budgets


def test_the_levels_never_sum_to_more_than_the_whole():
    levels = [1 - b.confidence for b in itertools.islice(budgets(Budget(confidence=0.95)), 10)]
    assert sum(levels) == pytest.approx(0.05, abs=1e-6)
    assert sum(levels) <= 0.05 + 1e-12
    assert levels[:3] == pytest.approx([0.04, 0.008, 0.0016])


def test_the_budget_itself_stays():
    first = next(budgets(Budget("top1", 0.02, 0.9)))
    assert (first.metric, first.max_drop) == ("top1", 0.02)
    assert first.confidence == pytest.approx(0.92)
