"""The A/B verdict: from rows of a log to what follows from them."""

import math

import numpy as np
import pytest
from scipy import stats

from fettle.core.errors import InputError
from fettle.monitor._effect import Bets, Rates
from fettle.monitor._pair import Pair
from fettle.monitor.ab import Plan, compare, evidence_path, needed, novelty
from fettle.monitor.log import open_log
from fettle.monitor.sequential import Tally, difference_log_evidence

SECOND = 1_000_000_000
START = 4_102_444_800_000_000_000


@pytest.fixture
def rows(make):
    """Rows of two arms: `right` gives each arm's share of right answers, `n` requests in all."""

    def build(n, right, share=0.5, seed=0, slow=(400, 400), failing=(0.0, 0.0), **changes):
        rng = np.random.default_rng(seed)
        found, labels = [], []
        for at in range(n):
            arm = int(rng.random() < share)
            failed = rng.random() < failing[arm]
            values = {
                "route": "ab"[arm],
                "key": f"caller-{at}",
                "total_us": int(rng.gamma(4, slow[arm] / 4)),
                "top": None if failed else 3,
                "status": "Broken" if failed else "ok",
                "time": make(0).time + at * SECOND,
            }
            found.append(make(at, **(values | changes)))
            labels.append((f"r{at}", 3 if rng.random() < right[arm] else 4, make(0).time))
        return found, labels

    return build


@pytest.fixture
def verdict(rows, written):
    """The one test that a log of such rows holds."""

    def build(*args, plan=None, labelled=True, **changes):
        found, labels = rows(*args, **changes)
        with open_log(written(found, labels if labelled else ())) as log:
            (trial,) = compare(log, plan or Plan(share=0.5))
        return trial

    return build


def test_the_path_is_what_the_difference_says_at_each_step():
    rng = np.random.default_rng(1)
    arms, hits = rng.integers(0, 2, 60), (rng.random(60) < 0.7).astype(float)
    path = evidence_path(arms, hits)
    for n in (5, 17, 60):
        a, b = (Tally(hits[:n][arms[:n] == k].sum(), int((arms[:n] == k).sum())) for k in (0, 1))
        assert path[n - 1] == pytest.approx(difference_log_evidence(a, b, 0.0), abs=1e-9)


def test_the_path_goes_on_from_what_was_counted():
    rng = np.random.default_rng(2)
    arms, hits = rng.integers(0, 2, (3, 50)), (rng.random((3, 50)) < 0.3).astype(float)
    whole = evidence_path(arms, hits)
    before = Pair()
    before.add(arms[1, :20], hits[1, :20])
    np.testing.assert_allclose(evidence_path(arms[1, 20:], hits[1, 20:], before), whole[1, 20:])


def test_the_path_is_zero_while_an_arm_is_empty():
    path = evidence_path(np.array([0, 0, 0, 1]), np.array([1.0, 1.0, 0.0, 1.0]))
    assert path[:3].tolist() == [0, 0, 0]
    assert np.isfinite(path).all()


def test_callers_of_equal_models_are_never_told_apart():
    """The share of A/A runs that ever cross stays within alpha, whatever the rate."""
    rng = np.random.default_rng(3)
    for rate in (0.02, 0.5, 0.97):
        arms = rng.integers(0, 2, (400, 1500))
        hits = (rng.random(arms.shape) < rate).astype(float)
        crossed = (evidence_path(arms, hits) >= -math.log(0.05)).any(1)
        assert crossed.mean() <= 0.05


def test_a_worse_model_is_found_and_when(verdict):
    trial = verdict(1500, (0.9, 0.6))
    assert trial.verdict == "worse"
    assert trial.advice == "Keep A: B is worse."
    assert trial.crossed.n < 300
    assert trial.effect.low < -0.3 < trial.effect.high < 0
    told = trial.to_json()
    assert told["measure"] == "accuracy"
    assert told["needed"] == {"difference": 0, "margin": 0}
    assert told["a"]["n"] + told["b"]["n"] == 1500


def test_equal_models_within_the_margin_are_equivalent(verdict):
    trial = verdict(2500, (0.99, 0.99), plan=Plan(share=0.5, margin=0.05))
    assert trial.verdict == "equivalent"
    assert trial.crossed is None
    assert not trial.mismatched


def test_little_is_known_of_few_callers(verdict):
    trial = verdict(40, (0.9, 0.88))
    assert trial.verdict == "open"
    assert trial.advice.startswith("Go on")
    assert trial.to_json()["needed"]["margin"] > 40


def test_a_caller_counts_once_however_many_requests_it_makes(make, written):
    rows = [make(at, route="ab"[at % 2], key=f"caller-{at % 2}") for at in range(200)]
    labels = [(f"r{at}", 3 if at % 2 else 4, START) for at in range(200)]
    with open_log(written(rows, labels)) as log:
        (trial,) = compare(log, Plan(share=0.5))
    assert (trial.outcome.a.n, trial.outcome.b.n) == (1, 1)
    assert trial.verdict == "open"
    assert trial.guards["failed"].estimate == 0


def test_requests_without_a_key_are_callers_of_their_own(verdict):
    trial = verdict(300, (0.9, 0.9), key="")
    assert trial.outcome.n == 300


def test_arms_of_the_wrong_size_are_worth_nothing(verdict):
    trial = verdict(1500, (0.9, 0.9), share=0.35, plan=Plan(share=0.5))
    assert trial.mismatched
    assert trial.advice.startswith("Don't trust it")
    assert not verdict(1500, (0.9, 0.9), share=0.35, plan=Plan(share=0.35)).mismatched


def test_sizes_are_not_judged_when_nobody_said_what_they_should_be(verdict):
    assert verdict(50, (0.9, 0.9), plan=Plan()).to_json()["sizes"] is None


def test_a_b_that_fails_is_stopped_however_right_it_is(verdict):
    trial = verdict(1200, (0.7, 0.95), failing=(0.0, 0.15))
    assert trial.broken == ["failed"]
    assert trial.advice == "Stop B: it fails more often than is allowed."


def test_a_slow_b_is_stopped(verdict):
    trial = verdict(4000, (0.9, 0.9), slow=(400, 900))
    assert trial.broken == ["slow"]
    limit = trial.limit_ms * 1000
    assert limit == pytest.approx(stats.gamma.ppf(0.99, 4, scale=100), rel=0.15)


def test_without_labels_answers_are_counted(verdict):
    trial = verdict(600, (0.5, 0.5), labelled=False, failing=(0.0, 0.3))
    assert trial.measure == "answered"
    assert trial.verdict == "worse"


def test_who_hangs_up_says_nothing(verdict):
    trial = verdict(60, (0.9, 0.9), status="CancelledError", labelled=False)
    assert trial.outcome.n == 0


def test_labels_may_be_names_and_unknown_ones_are_told(make, written):
    rows = [make(at, route="ab"[at % 2], key="", top=at % 2) for at in range(6)]
    labels = [(f"r{at}", ["cat", "dog"][at % 2] if at < 4 else "cow", START) for at in range(6)]
    with open_log(written(rows, labels)) as log:
        (trial,) = compare(log, Plan(classes={"cat": 0, "dog": 1}))
    assert trial.outcome.n == 4
    assert trial.outcome.a.hits == 2
    assert trial.unmatched == 2


def test_a_log_without_arms_holds_no_test(make, written):
    with open_log(written([make(at) for at in range(3)])) as log:
        assert compare(log) == []


def test_a_canary_is_compared_too_but_its_sizes_are_not_judged(make, written):
    rows = [make(at, route=("primary", "canary")[at % 4 == 0], key="") for at in range(40)]
    with open_log(written(rows)) as log:
        (trial,) = compare(log, Plan(share=0.5))
    assert trial.parts == ("primary", "canary")
    assert trial.mismatch is None


def counted(effect, n, rates, seed=0, share=0.5):
    """Count `n` callers."""
    rng = np.random.default_rng(seed)
    arms = (rng.random(n) < share).astype(int)
    hits = (rng.random(n) < np.array(rates)[arms]).astype(float)
    effect.add(arms, hits)
    return arms, hits


@pytest.mark.parametrize("kind", ["lot", "rates"])
def test_the_size_still_needed_is_enough_four_times_in_five(kind):
    def begun():
        return Bets(0.5, 0.02, 0.05) if kind == "lot" else Rates(0.05)

    few, rates, found = begun(), (0.85, 0.90), 0
    arms = np.tile([0, 1], 400)
    few.add(arms, (np.arange(800) % 40 < np.where(arms, 36, 34)).astype(float))
    assert few.interval().estimate == pytest.approx(0.05, abs=0.01)
    n = 800 + needed(few, 800, 0.02)["difference"]
    for seed in range(100):
        trial = begun()
        arms, hits = counted(begun(), n, rates, seed)
        found += bool((trial.path(arms, hits) >= -math.log(0.05)).any())
    assert found / 100 > 0.68


def test_a_size_that_nobody_could_wait_for_is_none():
    same = Rates(0.05, Pair(Tally(80, 100), Tally(80, 100)))
    assert needed(same, 200, 0.01)["difference"] is None
    assert needed(Rates(0.05), 0, 0.01) == {"difference": None, "margin": None}
    assert needed(Bets(0.5, 0.01, 0.05), 0, 0.01) == {"difference": None, "margin": None}


def test_an_effect_that_fades_is_told_from_a_steady_one():
    def windows(effects):
        pairs = {}
        for at, effect in enumerate(effects):
            a, b = Tally(1600, 2000), Tally((0.8 + effect) * 2000, 2000)
            pairs[at * SECOND] = Pair(a, b)
        return pairs

    assert novelty(windows([0.1, 0.08, 0.06, 0.04, 0.02, 0.0]))["trend"] == "fades"
    assert novelty(windows([0.0, 0.02, 0.04, 0.06, 0.08, 0.1]))["trend"] == "grows"
    steady = novelty(windows([0.05] * 6))
    assert steady["trend"] == "steady"
    assert steady["change"]["estimate"] == pytest.approx(0, abs=1e-3)
    assert novelty(windows([0.1, 0.0]))["trend"] == "unknown"


def test_steady_effects_are_seldom_said_to_change():
    rng = np.random.default_rng(5)
    changes = 0
    for _ in range(300):
        pairs = {
            at * SECOND: Pair(
                Tally(rng.binomial(200, 0.8), 200), Tally(rng.binomial(200, 0.85), 200)
            )
            for at in range(8)
        }
        changes += novelty(pairs)["trend"] != "steady"
    assert changes / 300 < 0.09


@pytest.mark.parametrize("wrong", [{"share": 0.0}, {"share": 1.2}, {"alpha": 2}, {"margin": -0.1}])
def test_a_plan_says_what_is_wrong_with_it(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        Plan(**wrong)
