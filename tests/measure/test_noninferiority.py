import numpy as np
import pytest
from scipy import stats

from fettle.core.errors import DataError
from fettle.core.verdict import Budget
from fettle.measure import drop_of, mean_score, proportion_interval, verdict_of
from fettle.measure._bootstrap import mean_bounds
from fettle.measure._paired_binary import p_value

STUDIES = 2000
ALLOWED = 0.05 + 3 * np.sqrt(0.05 * 0.95 / STUDIES)  # three standard errors of a simulation


def scores(lost, won, n):
    """Paired 0/1 scores with these counts of disagreement."""
    baseline, candidate = np.ones(n), np.ones(n)
    candidate[:lost] = 0
    baseline[lost : lost + won] = 0
    return baseline, candidate


def pass_rate(n, drop, disagreement, budget, seed=0):
    """The share of simulated studies that pass: each distinct pair of counts is tested once."""
    lost, won = (disagreement + drop) / 2, (disagreement - drop) / 2
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(n, [lost, won, 1 - lost - won], size=STUDIES)[:, :2]
    pairs, times = np.unique(drawn, axis=0, return_counts=True)
    passed = [p_value(int(b), int(c), n, budget, 0.05) <= 0.05 for b, c in pairs]
    return times[passed].sum() / STUDIES


@pytest.mark.parametrize(
    ("n", "budget", "disagreement"),
    [(100, 0.02, 0.02), (100, 0.01, 0.1), (300, 0.01, 0.02), (300, 0.02, 0.02),
     (1000, 0.005, 0.005), (1000, 0.01, 0.02)],
)  # fmt: skip
def test_on_the_budget_it_passes_one_time_in_twenty_at_most(n, budget, disagreement):
    assert pass_rate(n, budget, disagreement, budget) <= ALLOWED


@pytest.mark.slow
@pytest.mark.parametrize("n", [100, 300, 1000, 10_000])
@pytest.mark.parametrize("budget", [0.005, 0.01, 0.02])
@pytest.mark.parametrize("disagreement", [0.005, 0.02, 0.1])
def test_the_level_everywhere(n, budget, disagreement):
    assert pass_rate(n, budget, max(budget, disagreement), budget) <= ALLOWED


def test_it_has_power_inside_the_budget():
    assert pass_rate(1000, 0.0, 0.01, 0.01) > 0.85
    assert pass_rate(1000, 0.0, 0.02, 0.02) > 0.98


def test_a_study_that_passes_by_the_test_passes_by_its_verdict():
    for lost, won, n in [(0, 0, 300), (1, 1, 1000), (5, 5, 1000), (2, 6, 1000), (4, 0, 1000)]:
        verdict = verdict_of(*scores(lost, won, n), Budget(max_drop=0.01))
        assert verdict.passed == (p_value(lost, won, n, 0.01) <= 0.05)


def test_the_three_outcomes():
    budget = Budget(max_drop=0.01)
    assert verdict_of(*scores(5, 5, 5000), budget).outcome == "pass"
    assert verdict_of(*scores(300, 5, 5000), budget).outcome == "fail"
    unsure = verdict_of(*scores(3, 2, 300), budget)
    assert unsure.outcome == "inconclusive"
    assert unsure.needed is not None
    assert unsure.needed > 300


def test_a_drop_is_its_mean_between_its_bounds():
    baseline, candidate = scores(12, 4, 1000)
    drop = drop_of(baseline, candidate)
    assert (drop.value, drop.n) == (pytest.approx(0.008), 1000)
    assert drop.low < drop.value < drop.high
    swapped = drop_of(candidate, baseline)
    assert (swapped.low, swapped.high) == (-drop.high, -drop.low)


def test_more_confidence_is_a_wider_interval():
    pair = scores(12, 4, 1000)
    assert drop_of(*pair, confidence=0.99).high > drop_of(*pair, confidence=0.9).high


def test_identical_scores_pass_only_with_enough_examples():
    budget = Budget(max_drop=0.01)
    few, many = np.ones(100), np.ones(1000)
    assert verdict_of(few, few, budget).outcome == "inconclusive"
    assert verdict_of(many, many, budget).outcome == "pass"
    assert verdict_of(few, few, budget).needed >= 298  # the rule of three: ln 20 / 0.01


@pytest.mark.parametrize("kind", [1.0, 0.3])
def test_identical_scores_are_no_proof_of_no_drop(kind):
    same = np.full(100, kind)
    drop = drop_of(same, same)
    assert drop.value == 0
    assert drop.low < -0.02
    assert drop.high > 0.02


def test_a_drop_on_the_budget_is_never_settled():
    assert verdict_of(*scores(10, 0, 1000), Budget(max_drop=0.01)).needed is None
    assert verdict_of(np.ones(10), np.ones(10), Budget(max_drop=0.0)).needed is None


def test_as_many_as_needed_settle_it_most_of_the_time():
    budget, rng = Budget(max_drop=0.01), np.random.default_rng(0)
    unsure = verdict_of(*scores(6, 4, 500), budget)
    drawn = rng.multinomial(unsure.needed, [0.012, 0.008, 0.98], size=40)[:, :2]
    settled = [verdict_of(*scores(b, c, unsure.needed), budget).passed for b, c in drawn]
    assert 0.6 <= np.mean(settled) <= 0.98


def test_one_example_says_nothing():
    drop = drop_of(np.ones(1), np.ones(1))
    assert (drop.low, drop.high) == (
        pytest.approx(-0.951, abs=1e-3),
        pytest.approx(0.951, abs=1e-3),
    )
    worst = verdict_of(np.zeros(1), np.ones(1), Budget(max_drop=0.01))
    assert worst.outcome == "inconclusive"
    with pytest.raises(DataError, match="at least 2"):
        drop_of(np.array([0.5]), np.array([0.4]))


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [([], [], "one score an example"), ([1, 0], [1], "one shape"), ([[1]], [[1]], "one shape"),
     ([1, np.nan], [1, 1], "1 of 2 scores"), ([1, 1], [np.inf, 1], "finite")],
)  # fmt: skip
def test_wrong_scores_are_refused(a, b, said):
    with pytest.raises(DataError, match=said):
        drop_of(np.array(a), np.array(b))


def test_other_scores_are_bootstrapped_and_repeat():
    rng = np.random.default_rng(0)
    baseline = rng.beta(8, 2, size=400)
    candidate = baseline - rng.normal(0.01, 0.05, size=400)
    first, second = (drop_of(baseline, candidate, seed=1) for _ in range(2))
    assert first == second
    assert "bootstrap" in first.test
    assert first.low < first.value < first.high


def test_the_bootstrap_is_near_students_t_for_normal_differences():
    values = np.random.default_rng(0).normal(0.1, 1.0, size=400)
    low, high = mean_bounds(values, 1.0, 0.95, seed=0)
    half = stats.t.isf(0.04, 399) * values.std(ddof=1) / 20
    assert high - values.mean() == pytest.approx(half, rel=0.1)
    assert values.mean() - low == pytest.approx(half, rel=0.1)


DIFFERENCES = {
    "normal": lambda rng, n: rng.normal(size=n),
    "skewed right": lambda rng, n: rng.beta(2, 8, size=n) - 0.2,
    "skewed left": lambda rng, n: 0.2 - rng.beta(2, 8, size=n),
    "mostly none": lambda rng, n: (rng.random(n) < 0.1) * rng.uniform(-1, 1, size=n),
    "rare losses": lambda rng, n: (rng.random(n) < 0.05) * rng.uniform(0, 1, size=n) - 0.025,
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", DIFFERENCES)
def test_the_bootstrap_keeps_its_level(kind):
    draw, rng = DIFFERENCES[kind], np.random.default_rng(2)
    bounds = np.array([mean_bounds(draw(rng, 100), 1.0, 0.95, seed) for seed in range(STUDIES)])
    assert (bounds[:, 1] < 0).mean() <= ALLOWED
    assert (bounds[:, 0] > 0).mean() <= ALLOWED


def test_a_proportion_has_clopper_and_pearsons_interval():
    low, high = proportion_interval(np.array([1.0] * 81 + [0.0] * 182))
    expected = stats.binomtest(81, 263).proportion_ci(0.95, method="exact")
    assert (low, high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert proportion_interval(np.zeros(10))[0] == 0
    assert proportion_interval(np.ones(10))[1] == 1


def test_a_mean_score_is_a_measurement():
    found = mean_score(np.array([1.0, 0.0, 1.0, 1.0]), "top1")
    assert (found.name, found.value, found.better, found.n) == ("top1", 0.75, "higher", 4)
    assert 0 < found.low < 0.75 < found.high < 1
    other = mean_score(np.linspace(0, 1, 50), "iou")
    assert other.value == pytest.approx(0.5)
    assert other.low < 0.45
    assert other.high > 0.55
