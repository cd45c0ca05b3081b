import numpy as np
import pytest
from scipy import stats

from fettle.measure._intervals import (
    geometric_interval,
    in_blocks,
    mean_interval,
    median_interval,
    order_bounds,
    percentile_interval,
)

STUDIES = 250
MARGINALS = {
    "lognormal": lambda z: np.exp(0.5 * z),
    "bimodal": lambda z: np.where(z < 1, 1 + 0.05 * z, 3 + 0.1 * z),
    "heavy tail": lambda z: stats.norm.sf(z) ** (-1 / 2.5),
}


@pytest.mark.parametrize("n", [6, 7, 10, 25, 100])
def test_the_interval_of_a_median_holds_95_percent_and_is_the_tightest(n):
    _, low, high = median_interval(np.arange(1, n + 1)[::-1])
    k = int(low)
    assert high == n + 1 - k
    missed = 2 * stats.binom.cdf(k - 1, n, 0.5)
    assert missed <= 0.05
    assert 2 * stats.binom.cdf(k, n, 0.5) > 0.05


def test_the_interval_of_a_median_covers_in_simulation():
    rng = np.random.default_rng(0)
    hits = [
        low <= 1.0 <= high
        for _, low, high in (median_interval(np.exp(rng.normal(size=20))) for _ in range(2000))
    ]
    assert np.mean(hits) >= 0.945


def test_fewer_than_six_values_give_the_extremes():
    assert median_interval(np.array([3.0, 1.0, 2.0])) == (2, 1, 3)
    assert median_interval(np.array([5.0])) == (5, 5, 5)


@pytest.mark.parametrize("n", [20, 59, 100, 1000, 3001])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.95, 0.99])
def test_order_bounds_are_the_tightest_that_hold(n, share):
    """Against the binomial distribution summed in full."""
    pmf = stats.binom.pmf(np.arange(n + 1), n, share)
    bounds = order_bounds(n, share)
    if bounds is None:
        assert share**n > 0.025 or (1 - share) ** n > 0.025
        return
    low, high = bounds
    assert pmf[:low].sum() <= 0.025 < pmf[: low + 1].sum()
    assert pmf[high:].sum() <= 0.025 < pmf[high - 1 :].sum()
    assert pmf[low:high].sum() >= 0.95


def test_no_bounds_from_too_few_samples():
    """The largest of n is below the p99 with probability 0.99^n: 368 are needed."""
    assert order_bounds(367, 0.99) is None
    assert order_bounds(368, 0.99) is not None
    assert order_bounds(0, 0.5) is None


def test_order_bounds_cover_in_simulation():
    low, high = order_bounds(200, 0.9)
    drawn = np.sort(np.random.default_rng(0).lognormal(size=(4000, 200)), axis=1)
    true = stats.lognorm(1).ppf(0.9)
    covered = np.mean((drawn[:, low - 1] <= true) & (true <= drawn[:, high - 1]))
    assert 0.945 <= covered <= 0.985


def independent(rng, rounds, runs):
    return rng.normal(size=(rounds, runs))


def alike_in_rounds(rng, rounds, runs):
    """Half of the variance belongs to the round."""
    return np.sqrt(0.5) * (rng.normal(size=(rounds, 1)) + rng.normal(size=(rounds, runs)))


def autocorrelated(rng, rounds, runs):
    """Each run is 0.9 like the last, all through."""
    from scipy.signal import lfilter

    drive = rng.normal(size=rounds * runs) * np.sqrt(1 - 0.9**2)
    drive[0] = rng.normal()
    return lfilter([1], [1, -0.9], drive).reshape(rounds, runs)


@pytest.mark.parametrize("marginal", MARGINALS)
@pytest.mark.parametrize("draw", [independent, alike_in_rounds, autocorrelated])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_percentiles_are_covered_where_samples_depend(draw, share, marginal):
    """Within three standard errors of a simulation of 250 studies."""
    rng, shape = np.random.default_rng(1), MARGINALS[marginal]
    found = [percentile_interval(shape(draw(rng, 24, 42)), share) for _ in range(STUDIES)]
    given = [pair for pair in found if pair]
    true = shape(np.array(stats.norm.ppf(share)))
    covered = np.mean([low <= true <= high for low, high in given])
    assert len(given) > 0.75 * STUDIES
    assert covered >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / len(given))


def test_the_independent_interval_would_not_cover():
    """What the rounds are for: order statistics alone hold in half of such runs at most."""
    rng = np.random.default_rng(2)
    low, high = order_bounds(24 * 42, 0.5)
    drawn = [np.sort(alike_in_rounds(rng, 24, 42).ravel()) for _ in range(STUDIES)]
    assert np.mean([x[low - 1] <= 0 <= x[high - 1] for x in drawn]) < 0.6


def test_p99_is_covered_for_independent_runs():
    rng = np.random.default_rng(3)
    found = [percentile_interval(rng.normal(size=(24, 84)), 0.99) for _ in range(STUDIES)]
    true = stats.norm.ppf(0.99)
    assert all(found)
    assert np.mean([low <= true <= high for low, high in found]) >= 0.95


def test_a_tail_that_lies_in_one_round_has_no_bound():
    blocks = np.ones((24, 42))
    blocks[7] = 5.0
    assert percentile_interval(blocks, 0.99) is None
    assert percentile_interval(blocks, 0.5) == (1, 1)


def test_builds_widen_what_rounds_alone_would_bound_too_tightly():
    """Six sessions of four rounds, with a level each: the rounds of a session are no news."""
    rng = np.random.default_rng(4)
    builds = np.repeat(np.arange(6), 4)
    unknown, known = [], []
    for _ in range(STUDIES):
        level = rng.normal(size=6)[builds][:, None]
        blocks = level + 0.3 * rng.normal(size=(24, 42))
        for hits, told in ((unknown, ()), (known, builds)):
            low, high = mean_interval(blocks, builds=told)
            hits.append(low <= 0 <= high)
    assert np.mean(unknown) < 0.9
    assert np.mean(known) >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / STUDIES)


@pytest.mark.parametrize("draw", [independent, alike_in_rounds, autocorrelated])
def test_the_mean_is_covered(draw):
    rng = np.random.default_rng(5)
    found = [mean_interval(np.exp(0.5 * draw(rng, 24, 42))) for _ in range(STUDIES)]
    covered = np.mean([low <= np.exp(0.125) <= high for low, high in found])
    assert covered >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / STUDIES)


def test_one_round_says_nothing_of_its_spread():
    assert mean_interval([np.arange(100.0)]) is None
    assert percentile_interval([np.arange(100.0)], 0.5) is None


def test_constant_samples_have_a_point_for_an_interval():
    blocks = np.full((24, 100), 2.5)
    assert percentile_interval(blocks, 0.99) == (2.5, 2.5)
    assert mean_interval(blocks) == (2.5, 2.5)
    assert geometric_interval(np.array([2.0, 2.0, 2.0])) == pytest.approx((2, 2, 2))


def test_the_geometric_interval_is_students_on_logarithms():
    ratios = np.array([1.1, 1.3, 0.9, 1.2])
    value, low, high = geometric_interval(ratios)
    assert value == pytest.approx(stats.gmean(ratios))
    told = stats.t.interval(0.95, 3, np.log(ratios).mean(), stats.sem(np.log(ratios)))
    assert (np.log(low), np.log(high)) == pytest.approx(told)


def test_a_stream_is_cut_in_order():
    parts = in_blocks(np.arange(100), 24)
    assert len(parts) == 24
    np.testing.assert_array_equal(np.concatenate(parts), np.arange(100))
    assert len(in_blocks(np.arange(5))) == 5
