"""Quantiles of a histogram agree with numpy's, and their intervals hold as often as they say."""

import numpy as np
import pytest

from fettle.monitor import histogram
from fettle.monitor.histogram import Histogram, bucket_of, middle_of


def counted(values):
    found = Histogram()
    found.add(np.asarray(values, dtype=np.float64))
    return found


def test_buckets_are_in_order_without_gaps_and_narrow():
    values = np.unique(np.concatenate([np.arange(5000), np.geomspace(5000, 2**41 - 1, 5000)]))
    values = values.astype(np.int64)
    buckets = bucket_of(values)
    assert (np.diff(buckets) >= 0).all()
    assert np.unique(buckets[values < 5000]).tolist() == list(range(buckets[4999] + 1))
    assert buckets.max() == histogram._BUCKETS - 1
    off = np.abs(middle_of(buckets) - values)
    assert (off[values < 256] == 0).all()
    assert (off <= values / 256).all()


@pytest.mark.parametrize("q", [0.0, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0])
def test_quantiles_agree_with_numpy(q):
    values = np.random.default_rng(0).lognormal(6, 2, 20_000).astype(np.int64)
    found = counted(values).quantile(q)
    expected = np.quantile(values, q, method="inverted_cdf") / 1000
    assert found.value == pytest.approx(expected, rel=1 / 256)
    assert found.low <= found.value <= found.high
    assert found.n == 20_000


@pytest.mark.parametrize("q", [0.5, 0.95])
def test_the_interval_holds_the_truth_as_often_as_it_says(q):
    rng = np.random.default_rng(1)
    truth = -np.log(1 - q) * 1000  # of an exponential law, in ms
    held = 0
    for _ in range(400):
        found = counted(rng.exponential(1e6, 300)).quantile(q)
        held += found.low <= truth * 1.004 and truth * 0.996 <= found.high
    assert held / 400 >= 0.93


def test_parts_add_up_to_the_whole():
    values = np.random.default_rng(0).integers(0, 10**7, 3000)
    whole, parts = counted(values), counted(values[:1000])
    parts += counted(values[1000:])
    assert (whole.counts == parts.counts).all()
    assert whole.mean == pytest.approx(values.mean() / 1000)
    assert whole.mean == pytest.approx(parts.mean)


def test_nothing_and_too_little():
    assert Histogram().quantile(0.5) is None
    assert Histogram().mean is None
    few = counted(np.arange(999))
    assert few.quantile(0.99) is None
    assert few.quantile(0.95) is not None
    assert counted([7000]).quantile(0.5).value == pytest.approx(7, rel=0.004)


def test_what_is_no_duration():
    odd = counted([np.nan, np.inf, -5, 1e300, 3])
    assert odd.n == 3
    assert odd.quantile(0.0).value == 0
