"""From what was seen of a tensor to the range that its integers should span.

Values past the range saturate; a smaller range means smaller steps. Each calibrator weighs the two
otherwise: `minmax` never saturates, `percentile` cuts a fixed share, `mse` minimises the mean
squared error Σ n·(x − q(x))², and `entropy` the Kullback-Leibler divergence between the histogram
and its quantized form.

Papers: Nagel et al. 2021 (arXiv 2106.08295), section 3.1, for the first three; Migacz 2017 (GTC
S7310) for the last.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fettle.graph._histogram import BINS, Histogram

PERCENT = 99.99  # of the values that the calibrator `percentile` keeps
CALIBRATORS = ("mse", "minmax", "percentile", "entropy")

_RATIOS = 2.0 ** (-np.arange(64) / 16)  # of the largest magnitude, down to a fifteenth
_LEVELS = 127
_KL_BINS, _KL_LEVELS = 2048, 128


def clipping(seen: Histogram, calibrator: str) -> float:
    """Return the magnitude past which values saturate: a number from 0 to `seen.top`."""
    if calibrator == "minmax" or not seen.counted:
        return seen.top
    found = {
        "percentile": lambda: _percentile(seen),
        "mse": lambda: _least(seen.top, lambda top: _squared_error(seen, -top, top)),
        "entropy": lambda: _entropy(seen),
    }[calibrator]()
    return min(float(found), seen.top)


def interval(seen: Histogram, calibrator: str) -> tuple[float, float]:
    """Return the lower and upper end for an asymmetric range, which holds zero."""
    low, high = min(seen.low, 0.0), max(seen.high, 0.0)
    if calibrator == "minmax" or not seen.counted:
        return low, high
    if calibrator == "mse":
        high = _least(high, lambda top: _squared_error(seen, low, top))
        return -_least(-low, lambda top: _squared_error(seen, -top, high)), high
    top = clipping(seen, calibrator)
    return max(low, -top), min(high, top)


def _least(top: float, error: Callable[[float], float]) -> float:
    """Return the end, of `top` and fractions of it, with the least error; the largest of ties."""
    if not top:
        return 0.0
    ends = [float(top * ratio) for ratio in _RATIOS]
    return min(ends, key=error)


def _squared_error(seen: Histogram, low: float, high: float) -> float:
    """Return Σ n·(x − q(x))² over the bins, in 254 steps from −high to high, or 255 from low."""
    used = np.flatnonzero(seen.counts)
    x, n = seen.centres()[used], seen.counts[used]
    steps = 2 * _LEVELS if low == -high else 2 * _LEVELS + 1
    scale = (high - low) / steps
    if not scale:
        return float(n @ (x * x))
    rounded = np.clip(np.rint(x / scale), np.rint(low / scale), np.rint(high / scale)) * scale
    error = x - rounded
    return float(n @ (error * error))


def _percentile(seen: Histogram) -> float:
    """Return the magnitude that `PERCENT` of the values don't pass, linear within a bin."""
    share = np.cumsum(seen.magnitudes()) / seen.counts.sum()
    wanted = PERCENT / 100
    index = int(np.searchsorted(share, wanted))
    if index >= BINS:
        return seen.top
    before = share[index - 1] if index else 0.0
    inside = (wanted - before) / (share[index] - before)
    return float((index + inside) * seen.width)


def _entropy(seen: Histogram) -> float:
    """Return the end of the reference distribution that loses least information in 128 levels.

    The bin at zero counts as its neighbour does: zeros, half of what comes out of a ReLU, are
    exact at any scale.
    """
    counts = seen.magnitudes().reshape(_KL_BINS, -1).sum(axis=1).astype(np.float64)
    counts[0] = counts[1]
    width = seen.span / _KL_BINS
    last = min(int(seen.top / width) + 1, _KL_BINS)
    stops = [*range(_KL_LEVELS, last, 8), last]
    if last <= _KL_LEVELS or not counts.any():
        return seen.top
    best = min(stops, key=lambda stop: _divergence(counts, stop))
    return float(best * width) if best < stops[-1] else seen.top


def _divergence(counts: np.ndarray, stop: int) -> float:
    """Return KL(P ‖ Q): P is cut at bin `stop`, Q is P's inside in 128 levels."""
    inside = counts[:stop]
    reference = inside.copy()
    reference[-1] += counts[stop:].sum()
    edges = np.arange(_KL_LEVELS) * stop // _KL_LEVELS
    lengths = np.diff([*edges, stop])
    sums = np.add.reduceat(inside, edges)
    used = np.add.reduceat((inside > 0).astype(np.float64), edges)
    spread = np.repeat(sums / np.maximum(used, 1), lengths) * (inside > 0)
    if not reference.sum() or not spread.sum():
        return float("inf")
    p, q = reference / reference.sum(), spread / spread.sum()
    known = p > 0
    return float(p[known] @ np.log(p[known] / np.maximum(q[known], 1e-12)))
