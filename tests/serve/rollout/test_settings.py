"""What a rollout is told."""

import pytest

from fettle.core.errors import InputError, KnobError
from fettle.core.knobs import knobs_of
from fettle.serve.rollout.settings import RolloutSettings


def test_by_default_nothing_rides_along():
    assert not RolloutSettings().wanted
    assert RolloutSettings(shadow="b").wanted
    assert RolloutSettings().steps == (0.01, 0.1, 0.5)
    assert RolloutSettings(rollout_confidence=0.9).alpha == pytest.approx(0.1)


def test_every_knob_has_its_meaning():
    assert all(knob.meaning for knob in knobs_of(RolloutSettings))


@pytest.mark.parametrize(
    "wrong",
    [
        {"split": 1.1},
        {"split": float("nan")},
        {"canary_least": 0},
        {"canary_p99_ms": -1.0},
        {"shadow_busy": 0.0},
        {"rollout_confidence": 1.0},
        {"shadow": 3},
    ],
)
def test_knobs_have_bounds(wrong):
    with pytest.raises(KnobError, match=next(iter(wrong))):
        RolloutSettings(**wrong)


@pytest.mark.parametrize(
    "steps", ["", "a", "0.5,0.1", "0.1,0.1", "0.1,1", "-0.1,0.5", "0.1,nan,0.5", "nan", "0.1,,0.5"]
)
def test_steps_are_shares_that_grow(steps):
    with pytest.raises(InputError, match="growing shares"):
        RolloutSettings(canary_steps=steps)


def test_a_first_step_may_only_compare():
    assert RolloutSettings(canary_steps="0, 0.2").steps == (0.0, 0.2)


def test_one_says_who_answers():
    with pytest.raises(InputError, match="both say who answers"):
        RolloutSettings(ab="one", canary="other")
