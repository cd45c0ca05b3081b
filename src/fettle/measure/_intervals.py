"""Intervals that need no assumption about the distribution, also where samples depend.

Runs that follow each other are alike: they share the state of caches, of the clock and of the
neighbours. An interval that takes them for independent is far too narrow (a median's held in 15 to
40 % of simulated runs instead of 95 %). What is independent, or nearly so, are rounds: the spread
between rounds says how many independent runs the sample is worth, and that number goes into the
exact interval. Rounds are also taken in pairs and, where sessions were rebuilt, by session; the
widest of the answers counts.

A machine that drifts more slowly than the run lasts can't be seen from within the run: intervals
are about the conditions that it met.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LEAST_GROUPS = 3
_LEAST_PAIRS = 6
Interval = tuple[float, float]


def median_interval(values: np.ndarray, confidence: float = 0.95) -> tuple[float, float, float]:
    """Return median, low and high of `values`, shape (n,): the sign test's interval.

    The bounds are order statistics x(k), x(n+1−k), with the largest k for which
    2·P(Bin(n, ½) < k) <= 1 − confidence. Below 6 values no such k exists at 95 %: the bounds are
    then the extremes, which hold the median with 1 − 2^(1−n) only.

    Source: W. J. Conover, Practical Nonparametric Statistics, 3rd ed., section 3.2.
    """
    from scipy import stats

    ordered = np.sort(np.asarray(values, dtype=np.float64))
    k = max(int(stats.binom.ppf((1 - confidence) / 2, len(ordered), 0.5)), 1)
    return float(np.median(ordered)), float(ordered[k - 1]), float(ordered[-k])


def order_bounds(n: int, share: float, confidence: float = 0.95) -> tuple[int, int] | None:
    """Return which order statistics of `n` independent samples hold the quantile `share`.

    The pair (l, u), counted from 1, is the tightest with P(Bin(n, share) < l) <= α/2 and
    P(Bin(n, share) >= u) <= α/2, exactly. None when so few samples don't bound it on both sides.

    Source: H. A. David, H. N. Nagaraja, Order Statistics, 3rd ed., section 7.1.
    """
    from scipy import stats

    tail = (1 - confidence) / 2
    low = int(stats.binom.ppf(tail, n, share))
    high = int(stats.binom.isf(tail, n, share)) + 1
    return (low, high) if low >= 1 and high <= n else None


def percentile_interval(
    blocks: Sequence[np.ndarray],
    share: float,
    confidence: float = 0.95,
    builds: Sequence[int] = (),
) -> Interval | None:
    """Return the interval of the quantile `share` (0 … 1), aware of rounds.

    How many independent samples n* the blocks are worth comes from the spread between rounds of
    the share of samples at or below the quantile, with Student's t for having few rounds; the
    exact order statistics for n* samples are then read off all samples. With independent samples
    it is a little wider than the exact interval. None when n* is too small to bound the quantile
    on both sides: one round, say, or a p99 all of whose slow runs lie in one round.

    Args:
        blocks: one array of samples a round, in order.
        share: 0.99 for p99.
        confidence: of the two-sided interval.
        builds: for each block, which build of the session ran it; empty when there was one.

    Sources: R. S. Woodruff, JASA 47 (1952) 635–646; E. L. Korn, B. I. Graubard, Survey Methodology
    24 (1998) 193–201.
    """
    values = np.concatenate([np.asarray(block, dtype=np.float64) for block in blocks])
    ordered = np.sort(values)
    n = len(ordered)
    quantile = ordered[max(int(np.ceil(share * n)), 1) - 1]
    # clocks are coarse: where many samples tie with the quantile, either side of it may be lopsided
    sides = ([b <= quantile for b in blocks], [b < quantile for b in blocks])
    groupings = _groupings(len(blocks), builds)
    worth = min((_worth(s, g, confidence) for g in groupings for s in sides), default=0)
    bounds = order_bounds(int(worth), share, confidence)
    if bounds is None:
        return None
    low = int((bounds[0] - 1) * n // int(worth))
    high = int(np.ceil(bounds[1] * n / int(worth)))
    return float(ordered[low]), float(ordered[high - 1])


def share_interval(hits: Sequence[np.ndarray], confidence: float = 0.95) -> Interval:
    """Return the interval of a share from blocks of booleans, aware of blocks; [0, 1] for fewer
    than 3 blocks.

    Clopper and Pearson's for as many independent samples as the blocks are worth.

    Source: E. L. Korn, B. I. Graubard, Survey Methodology 24 (1998) 193–201.
    """
    from scipy import stats

    values = np.concatenate(hits)
    worth = min((_worth(hits, g, confidence) for g in _groupings(len(hits), ())), default=0.0)
    if worth == 0:
        return 0.0, 1.0
    found, tail = float(values.mean()) * worth, (1 - confidence) / 2
    low = float(stats.beta.ppf(tail, found, worth - found + 1)) if found > 0 else 0.0
    high = float(stats.beta.isf(tail, found + 1, worth - found)) if found < worth else 1.0
    return low, high


def mean_interval(
    blocks: Sequence[np.ndarray], confidence: float = 0.95, builds: Sequence[int] = ()
) -> Interval | None:
    """Return Student's interval of the mean over rounds; None for fewer than 3 rounds.

    With few rounds and a heavy tail it holds a little less than it says (92 % in simulation for
    Pareto-distributed times, exponent 2.5, in 24 independent rounds).

    Source: batch means; A. M. Law, Simulation Modeling and Analysis, 5th ed., section 9.5.
    """
    from scipy import stats

    centre = float(np.concatenate(blocks).mean())
    widths = []
    for labels in _groupings(len(blocks), builds):
        means = [part.mean() for part in _merged(blocks, labels)]
        t = stats.t.isf((1 - confidence) / 2, len(means) - 1)
        widths.append(float(t * np.std(means, ddof=1) / np.sqrt(len(means))))
    return (centre - max(widths), centre + max(widths)) if widths else None


def geometric_interval(ratios: np.ndarray, confidence: float = 0.95) -> tuple[float, float, float]:
    """Return the geometric mean of positive `ratios`, shape (n,), n >= 2, with its interval.

    Student's interval on logarithms: for few independent ratios, one a build.
    """
    from scipy import stats

    logs = np.log(ratios)
    t = stats.t.isf((1 - confidence) / 2, len(logs) - 1)
    centre, width = logs.mean(), t * logs.std(ddof=1) / np.sqrt(len(logs))
    return float(np.exp(centre)), float(np.exp(centre - width)), float(np.exp(centre + width))


def in_blocks(values: np.ndarray, count: int = 24) -> list[np.ndarray]:
    """Cut one stream of samples into at most `count` consecutive blocks, to stand for rounds."""
    return [part for part in np.array_split(np.asarray(values), count) if len(part)]


def _groupings(rounds: int, builds: Sequence[int]) -> list[np.ndarray]:
    """Return the ways to group rounds, each a label for every round."""
    single = np.arange(rounds)
    found = [single] if rounds >= LEAST_GROUPS else []
    if rounds // 2 >= _LEAST_PAIRS:
        found.append(np.minimum(single // 2, rounds // 2 - 1))  # an odd one joins the last pair
    if len(set(builds)) >= LEAST_GROUPS:
        found.append(np.asarray(builds))
    return found


def _merged(blocks: Sequence[np.ndarray], labels: np.ndarray) -> list[np.ndarray]:
    return [
        np.concatenate([block for block, at in zip(blocks, labels, strict=True) if at == label])
        for label in np.unique(labels)
    ]


def _worth(below: Sequence[np.ndarray], labels: np.ndarray, confidence: float) -> float:
    """Return how many independent samples the blocks are worth: n over the design effect."""
    from scipy import stats

    groups = _merged(below, labels)
    n = sum(len(group) for group in groups)
    share = sum(int(group.sum()) for group in groups) / n
    independent = share * (1 - share) / n
    excess = np.array([group.sum() - share * len(group) for group in groups])
    count = len(groups)
    spread = count / (count - 1) * float((excess**2).sum()) / n**2
    effect = max(1.0, spread / independent) if independent > 0 else 1.0
    tail = (1 - confidence) / 2
    return n / effect * float(stats.norm.isf(tail) / stats.t.isf(tail, count - 1)) ** 2
