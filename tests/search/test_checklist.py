"""The checklist's own judgements: what is inside a budget, what is of another kind."""

import numpy as np
import pytest

from fettle.core.errors import InputError
from fettle.search import _checks as checks
from fettle.search.checklist import CheckSetting, _latency_row

RNG = np.random.default_rng(0)
FEW = {"p50": 1.0, "p95": 2.0, "p99": None}


@pytest.mark.parametrize(
    ("low", "high", "passed"), [(0.91, 0.95, True), (0.80, 0.85, False), (0.85, 0.95, None)]
)
def test_other_examples_judge_by_their_interval(low, high, passed):
    assert checks._within(low, high, least=0.9) is passed


def test_the_least_value_is_the_baselines_less_the_budget():
    baseline = {"baseline": {"metric": {"value": 0.93}}}
    assert checks._least({"budget": {"max_drop": 0.02}}, baseline) == pytest.approx(0.91)
    assert checks._least(None, baseline) is None
    assert checks._least({"budget": {"max_drop": 0.02}}, {}) is None


def test_samples_of_one_kind_lie_together_and_of_two_kinds_apart():
    a, b = (checks._moments(RNG.normal(size=(400, 3, 8, 8))) for _ in range(2))
    other = checks._moments(RNG.normal(1, 1, size=(400, 3, 8, 8)))
    assert checks._apart(a, b) < 0.05
    assert checks._apart(a, other) > checks.DISTANCE


def test_one_example_is_no_proof_of_another_kind():
    one = checks._moments(RNG.normal(5, 1, size=(1, 3, 8, 8)))
    many = checks._moments(RNG.normal(size=(400, 3, 8, 8)))
    assert checks._apart(one, many) == 0.0


@pytest.mark.parametrize(("p99", "passed"), [(3.0, True), (5.0, False), (None, None)])
def test_a_limit_holds_p99_of_the_smallest_batch(p99, passed):
    row = _latency_row({4: FEW, 1: {**FEW, "p99": p99}}, 4.0)
    assert row["batch"] == 1
    assert row["passed"] is passed


def test_without_a_limit_latency_is_only_told():
    assert _latency_row({1: FEW}, None)["passed"] is None


def test_no_batch_is_refused():
    with pytest.raises(InputError, match="--max-batch"):
        CheckSetting(max_batch=0)
