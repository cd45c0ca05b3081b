"""A canary's trial: what follows from what is counted."""

import numpy as np
import pytest

from fettle.monitor.sequential import Tally, difference, proportion
from fettle.serve.rollout._trial import Limits, Trial

STEPS = (0.1, 0.5)


def trial(**changes):
    return Trial("p", "c", Limits(**{"steps": STEPS, "least": 100, **changes}))


def counted(t, differ=(0, 3000), base=(0, 5000), errors=(0, 3000), slow=(0, 3000)):
    t.disagreement, t.base, t.errors, t.slow = (Tally(*c) for c in (differ, base, errors, slow))
    return t


def test_all_measures_within_their_limits_promote_and_then_complete():
    t = trial(p99_s=0.1)
    first = counted(t).decide("m")
    assert (first.decision, first.before, first.after, first.step) == ("promote", 0.1, 0.5, 1)
    t.follow(first)
    assert (t.share, t.errors.n, t.slow.n) == (0.5, 0, 0)
    assert (t.disagreement.n, t.base.n) == (3000, 5000)  # these go on
    assert t.decide("m") is None
    second = counted(t).decide("m")
    assert (second.decision, second.after) == ("complete", 1.0)
    t.follow(second)
    assert t.complete
    assert counted(t).decide("m") is None


@pytest.mark.parametrize(
    ("worse", "told"),
    [
        ({"differ": (400, 3000)}, "answers that differ"),
        ({"errors": (200, 3000)}, "failures above"),
        ({"slow": (120, 3000)}, "slower than"),
    ],
)
@pytest.mark.parametrize("step", [0, 1, 2])
def test_one_measure_past_its_limit_rolls_back(worse, told, step):
    t = trial(p99_s=0.1)
    t.step = step
    found = counted(t, **worse).decide("m")
    assert (found.decision, found.after) == ("rollback", 0.0)
    assert told in found.reason
    t.follow(found)
    assert (t.share, t.state) == (0.0, "rolled back")
    assert t.decide("m") is None


@pytest.mark.parametrize(
    "unsure", [{"differ": (150, 3000)}, {"errors": (15, 1000)}, {"slow": (30, 3000)}]
)
def test_what_is_not_known_decides_nothing(unsure):
    assert counted(trial(p99_s=0.1), **unsure).decide("m") is None


def test_failures_that_the_primary_has_too_are_no_one_s_fault():
    common = {"base": (1500, 5000), "errors": (900, 3000)}
    assert counted(trial(errors=0.1), **common).decide("m").decision == "promote"


def test_evidence_is_what_the_intervals_are():
    t = counted(trial(p99_s=0.1), differ=(40, 3000), errors=(2, 3000), base=(3, 5000))
    evidence = t.decide("m").evidence
    each = 0.05 / 7  # one of disagreement, two at each of two steps and the end
    assert t.limits.each == pytest.approx(each)
    found = evidence["disagreement"]
    assert (found["estimate"], found["low"], found["high"]) == proportion(40, 3000, each)
    assert (found["hits"], found["n"], found["limit"], found["side"]) == (40, 3000, 0.05, "below")
    assert found["confidence"] == pytest.approx(1 - each)
    more = difference(Tally(3, 5000), Tally(2, 3000), each)
    assert (evidence["errors"]["low"], evidence["errors"]["high"]) == more[1:]
    assert evidence["errors"]["primary"] == {"hits": 3, "n": 5000}
    assert evidence["p99"]["seconds"] == 0.1


def test_measures_can_be_left_out():
    t = counted(trial(disagreement=None))
    assert list(t.measures()) == ["errors"]
    assert t.limits.each == pytest.approx(0.05 / 4)


def test_before_it_answers_anyone_only_disagreement_counts():
    t = trial(steps=(0.0, 0.5))
    assert counted(t, errors=(0, 0), differ=(0, 99)).decide("m") is None
    t = counted(t, errors=(0, 0))
    assert list(t.measures()) == ["disagreement"]
    assert t.decide("m").after == 0.5


def test_it_answers_at_least_so_many():
    t = counted(trial(least=4000))
    assert t.decide("m") is None


def test_requests_are_counted_by_who_answered():
    t = trial(p99_s=0.1)
    for canary, failed, seconds in ((True, False, 0.2), (True, True, 0.05), (False, True, 9)):
        t.answered(canary, failed, seconds)
    assert (t.errors, t.slow, t.base) == (Tally(1, 2), Tally(1, 2), Tally(1, 1))


def test_a_copy_stands_still():
    t = trial()
    copy = t.copy()
    t.disagreement.add(1)
    t.answered(True, True, 1.0)
    assert copy == trial()


def simulate(rng, differ, fails, requests=6000, look=10):
    """Run one trial of two steps with a look every few requests; return the decisions."""
    t, made = trial(least=50), []
    for number in range(requests):
        canary = rng.random() < t.share
        t.answered(canary, rng.random() < (fails if canary else 0.01), 0.0)
        t.disagreement.add(rng.random() < differ)
        if number % look == 0 and (decision := t.decide("m")) is not None:
            made.append(decision.decision)
            t.follow(decision)
            if t.state != "running":
                break
    return made


def test_a_canary_at_its_limits_is_hardly_ever_rolled_back():
    rng = np.random.default_rng(0)
    found = [simulate(rng, differ=0.05, fails=0.02, requests=500, look=5) for _ in range(40)]
    assert sum("rollback" in made for made in found) <= 2  # the limits themselves are allowed


def test_a_bad_one_is_rolled_back_and_a_good_one_goes_through():
    rng = np.random.default_rng(1)
    assert simulate(rng, differ=0.2, fails=0.01)[-1] == "rollback"
    assert simulate(rng, differ=0.0, fails=0.3)[-1] == "rollback"
    assert simulate(rng, differ=0.005, fails=0.0, requests=30_000, look=100) == [
        "promote",
        "complete",
    ]
