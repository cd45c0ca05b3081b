"""The levels of several looks at `test`."""

import itertools

import pytest

from fettle.core.verdict import Budget
from fettle.search.looks import Looks, budgets


def test_the_levels_never_sum_to_more_than_the_whole():
    levels = [1 - b.confidence for b in itertools.islice(budgets(Budget(confidence=0.95)), 10)]
    assert sum(levels) == pytest.approx(0.05, abs=1e-6)
    assert sum(levels) <= 0.05 + 1e-12
    assert levels[:3] == pytest.approx([0.04, 0.008, 0.0016])


def test_the_budget_itself_stays():
    first = next(budgets(Budget("top1", 0.02, 0.9)))
    assert (first.metric, first.max_drop) == ("top1", 0.02)
    assert first.confidence == pytest.approx(0.92)


def test_each_candidate_has_the_level_of_its_turn_and_keeps_it():
    looks = Looks(Budget(confidence=0.95))
    assert looks.budget_of("a").confidence == pytest.approx(0.96)
    assert [looks.take(name).confidence for name in ("a", "b", "a", "c")] == pytest.approx(
        [0.96, 0.992, 0.96, 0.9984]
    )
    assert looks.seen == ["a", "b", "c"]
    assert looks.budget_of("d").confidence > looks.budget_of("c").confidence


def test_looks_of_earlier_runs_at_the_same_test_count():
    events = [
        {"event": "look", "candidate": "a", "test": "T"},
        {"event": "look", "candidate": "a", "test": "T"},
        {"event": "look", "candidate": "b", "test": "another"},
        {"event": "look", "test": "T"},  # of a journal that names none
        {"event": "trial", "candidate": "c", "test": "T"},
    ]
    looks = Looks.of(Budget(confidence=0.9), events, "T")
    assert looks.seen == ["a"]
    assert looks.take("b").confidence == pytest.approx(1 - 0.8 * 0.02)


def test_a_hundred_looks_never_take_more_than_the_level():
    looks = Looks(Budget(confidence=0.95))
    levels = [1 - looks.take(str(i)).confidence for i in range(100)]
    assert all(level > 0 for level in levels)
    assert sum(levels) <= 0.05 + 1e-9
