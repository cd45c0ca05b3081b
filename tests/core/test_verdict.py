import json

import pytest

from fettle.core.errors import KnobError
from fettle.core.verdict import Budget, Drop, Verdict


def drop(low, value, high):
    return Drop(value, low, high, 1000, "a test")


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (-0.02, 0.009, "pass"),
        (-0.02, 0.01, "pass"),  # within the budget includes the budget
        (0.0, 0.0101, "inconclusive"),
        (0.01, 0.03, "inconclusive"),  # past the budget excludes it
        (0.0101, 0.03, "fail"),
        (-0.5, 0.5, "inconclusive"),
        (float("nan"), float("nan"), "inconclusive"),
    ],
)
def test_rule_five(low, high, outcome):
    verdict = Verdict.of(drop(low, 0.005, high), Budget(max_drop=0.01), needed=4000)
    assert verdict.outcome == outcome
    assert verdict.passed is (outcome == "pass")
    assert verdict.needed == (4000 if outcome == "inconclusive" else None)


@pytest.mark.parametrize("max_drop", [-0.01, 1.0, 2, float("nan")])
def test_a_budget_is_a_share(max_drop):
    with pytest.raises(KnobError, match="max_drop"):
        Budget(max_drop=max_drop)


@pytest.mark.parametrize("confidence", [0.5, 1.0, 95, float("nan")])
def test_a_confidence_is_more_than_a_coin(confidence):
    with pytest.raises(KnobError, match="confidence"):
        Budget(confidence=confidence)


def test_no_drop_at_all_may_be_asked_for():
    assert Verdict.of(drop(-0.02, -0.01, -0.001), Budget(max_drop=0)).passed


def test_json_round_trip():
    verdict = Verdict.of(drop(0.0, 0.005, 0.02), Budget("top1", 0.01, 0.9), needed=1234)
    assert Verdict.from_json(json.loads(json.dumps(verdict.to_json()))) == verdict


def test_prints_what_a_reader_needs():
    verdict = Verdict.of(drop(-0.001, 0.005, 0.02), Budget(), needed=12345)
    assert str(verdict) == (
        "inconclusive: top1 drops by +0.0050, bounds [-0.0010, +0.0200] at 95% one-sided, budget"
        " 0.0100, n = 1000 (a test); about 12,345 examples would settle it"
    )
    never = Verdict.of(drop(-0.01, 0.0, 0.01), Budget(max_drop=0))
    assert str(never).endswith("on the budget, so no number of examples would settle it")
    spent = Budget(confidence=0.9984)  # what several looks leave of 95 %
    assert "at 99.84% one-sided" in str(Verdict.of(drop(0, 0, 0), spent))
    assert "settle" not in str(Verdict.of(drop(0, 0, 0), Budget()))
