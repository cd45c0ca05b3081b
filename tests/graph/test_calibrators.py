"""Each calibrator against a direct float64 computation on all of the data."""

import numpy as np
import pytest

from fettle.graph._calibrators import PERCENT, clipping, interval
from fettle.graph._histogram import BINS, Histogram

RNG = np.random.default_rng(0)
DATA = {
    "normal": RNG.normal(0, 3, 60_000),
    "rectified": np.maximum(RNG.normal(0, 1, 60_000), 0),
    "heavy": RNG.standard_t(3, 60_000),
    "shifted": RNG.normal(2, 0.5, 60_000),
}


def seen(x, parts=7):
    histogram = Histogram()
    for part in np.array_split(x.astype(np.float32), parts):
        histogram.extend(part.min(), part.max())
        histogram.add(part)
    return histogram


def error(x, low, high, steps):
    scale = (high - low) / steps
    q = np.clip(np.rint(x / scale), np.rint(low / scale), np.rint(high / scale))
    return ((x - q * scale) ** 2).mean()


@pytest.mark.parametrize("name", DATA)
def test_counts_are_exact_however_the_batches_fall(name):
    x = DATA[name].astype(np.float32)
    order = np.sort(np.abs(x))  # the range grows with every part
    histograms = [seen(x, 1), seen(order, 40), seen(x, 13)]
    for histogram in histograms:
        assert histogram.counts.sum() == x.size
        assert histogram.span == 2 ** np.ceil(np.log2(np.abs(x).max()))
    np.testing.assert_array_equal(histograms[0].counts, histograms[2].counts)
    edges = np.arange(BINS + 1) * histograms[0].width
    expected, _ = np.histogram(order.astype(np.float64), edges)
    np.testing.assert_array_equal(histograms[1].magnitudes(), expected)


def test_histograms_of_different_spans_add_exactly():
    small, large = RNG.normal(0, 0.1, 5000), RNG.normal(0, 9, 5000)
    both = seen(np.concatenate([small, large]))
    for a, b in ((small, large), (large, small)):
        merged = seen(a)
        merged.merge(seen(b))
        np.testing.assert_array_equal(merged.counts, both.counts)
        assert (merged.low, merged.high, merged.span) == (both.low, both.high, both.span)


@pytest.mark.parametrize("name", DATA)
def test_minmax(name):
    x = DATA[name].astype(np.float32)
    assert clipping(seen(x), "minmax") == np.abs(x).max()
    assert interval(seen(x), "minmax") == (min(x.min(), 0), x.max())


@pytest.mark.parametrize("name", DATA)
def test_percentile(name):
    x = DATA[name]
    histogram = seen(x)
    expected = np.percentile(np.abs(x), PERCENT)
    assert clipping(histogram, "percentile") == pytest.approx(expected, abs=histogram.width)
    low, high = interval(histogram, "percentile")
    assert low == pytest.approx(max(min(x.min(), 0), -expected), abs=histogram.width)
    assert high == pytest.approx(expected, abs=histogram.width)


@pytest.mark.parametrize("name", DATA)
def test_least_squared_error(name):
    x = DATA[name]
    top = clipping(seen(x), "mse")
    tops = np.abs(x).max() * np.linspace(0.1, 1, 200)
    best = min(error(x, -t, t, 254) for t in tops)
    assert error(x, -top, top, 254) <= best * 1.03
    assert error(x, -top, top, 254) <= error(x, -np.abs(x).max(), np.abs(x).max(), 254)


@pytest.mark.parametrize("name", DATA)
def test_least_squared_error_of_an_interval(name):
    x = DATA[name]
    low, high = interval(seen(x), "mse")
    assert low <= 0 <= high
    found = error(x, low, high, 255)
    assert found <= error(x, min(x.min(), 0), x.max(), 255) * 1.001
    symmetric = clipping(seen(x), "mse")
    assert found <= error(x, -symmetric, symmetric, 254) * 1.03


def divergence(x, top, last, levels=128, bins=2048):
    """KL(P ‖ Q) by the letter: cut at `top`, the rest in the last bin, requantized in levels."""
    counts, _ = np.histogram(np.abs(x), np.linspace(0, last, bins + 1))
    counts = counts.astype(np.float64)
    counts[0] = counts[1]
    stop = round(top / last * bins)
    p = counts[:stop].copy()
    p[-1] += counts[stop:].sum()
    q = np.zeros(stop)
    for level in range(levels):
        start, end = level * stop // levels, (level + 1) * stop // levels
        part = counts[start:end]
        if part.any():
            q[start:end][part > 0] = part.sum() / (part > 0).sum()
    p, q = p / p.sum(), q / q.sum()
    return sum(a * np.log(a / max(b, 1e-12)) for a, b in zip(p, q, strict=True) if a)


@pytest.mark.parametrize("name", DATA)
def test_entropy(name):
    x = DATA[name].astype(np.float32)
    histogram = seen(x)
    top = clipping(histogram, "entropy")
    assert 0 < top <= histogram.top
    steps = np.arange(128, int(np.ceil(histogram.top / histogram.span * 2048)) + 1, 96)
    others = [divergence(x, s / 2048 * histogram.span, histogram.span) for s in steps]
    assert divergence(x, min(top, histogram.top), histogram.span) <= min(others) * 1.05 + 1e-6


@pytest.mark.parametrize("calibrator", ["mse", "minmax", "percentile", "entropy"])
@pytest.mark.parametrize("value", [0.0, 1e-42, -3.0, 7.0, 3e38])
def test_constants_give_a_range_that_holds_them(calibrator, value):
    histogram = seen(np.full(100, value))
    assert clipping(histogram, calibrator) == pytest.approx(abs(np.float32(value)), rel=1e-3)
    low, high = interval(histogram, calibrator)
    assert low <= 0 <= high
    assert high - low == pytest.approx(abs(np.float32(value)), rel=1e-3)


@pytest.mark.parametrize("calibrator", ["mse", "minmax", "percentile", "entropy"])
def test_without_counts_the_extremes_decide(calibrator):
    histogram = Histogram()
    histogram.extend(-2.0, 5.0)
    assert clipping(histogram, calibrator) == 5.0
    assert interval(histogram, calibrator) == (-2.0, 5.0)
