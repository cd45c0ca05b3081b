"""Which trial wins, and which are on the frontier."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from fettle.core.verdict import Budget
from fettle.search._result import frontier
from fettle.search.study import choose


def trial(name, drop, p50):
    row = {"drop": {"value": drop}, "latency_ms": {"p50": p50}}
    return SimpleNamespace(name=name, row=row)


@dataclass
class Case:
    trials: list
    winner: str


CASES = {
    "the fastest of those within half of the budget": Case(
        [trial("plain", 0, 3), trial("good", 0.005, 2), trial("fast", 0.0051, 1)], "good"
    ),
    "better than the baseline is within it": Case(
        [trial("plain", 0, 3), trial("better", -0.02, 1)], "better"
    ),
    "none within: the smallest drop, however slow": Case(
        [trial("a", 0.03, 1), trial("b", 0.02, 9), trial("c", 0.021, 2)], "b"
    ),
    "none within, two alike: the faster": Case([trial("a", 0.02, 2), trial("b", 0.02, 1)], "b"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_choose(case):
    for trials in (case.trials, case.trials[::-1]):
        assert choose(trials, Budget(max_drop=0.01)).name == case.winner


def test_choose_with_no_budget_takes_what_loses_nothing():
    trials = [trial("plain", 0, 3), trial("same", 0, 2), trial("worse", 1e-9, 1)]
    assert choose(trials, Budget(max_drop=0)).name == "same"


def row(name, p50, quality, refused=None):
    if refused:
        return {"name": name, "latency_ms": None, "metric": None, "refused": refused}
    return {"name": name, "latency_ms": {"p50": p50}, "metric": {"value": quality},
            "refused": None}  # fmt: skip


def test_frontier_keeps_what_no_other_beats_in_both():
    rows = [
        row("slow and best", 9, 0.99),
        row("dominated", 5, 0.90),
        row("fast", 1, 0.80),
        row("middle", 4, 0.95),
        row("as good as middle, slower", 6, 0.95),
        row("as fast as fast, worse", 1, 0.70),
        row("refused", None, None, refused="no such operator"),
    ]
    for given in (rows, rows[::-1]):
        assert [r["name"] for r in frontier(given)] == ["fast", "middle", "slow and best"]
    assert frontier([]) == []
