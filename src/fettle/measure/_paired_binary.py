"""An exact upper bound on the difference of two paired proportions.

Of n examples, b are right under the baseline alone and c under the candidate alone; with the rest
they are trinomial: (b, c) ~ Multinomial(n; p_b, p_c). The drop is δ = p_b − p_c.

The test of p_b − p_c >= δ rejects for small values of Tango's score statistic

    z = (b − c − nδ) / sqrt(n (2 p̃_c + δ (1 − δ))),   p̃_c the maximum-likelihood p_c given δ,

but its p-value is not read from the normal distribution, which lets it pass too often when few
examples disagree. It is the exact trinomial probability of z at least as small, maximised over
the one unknown that is left, the rate of disagreement q = p_b + p_c. The maximum is taken over
a confidence interval of q of level 1 − γ, and γ is added to the p-value (Berger and Boos): the
level is then kept for every q, and no power is lost to rates that the data rule out.

Sources: T. Tango, Statistics in Medicine 17 (1998) 891–908. H.-M. Hsueh, J.-P. Liu, J. J. Chen,
Biometrics 57 (2001) 478–483. R. L. Berger, K. Sidik, Statistical Methods in Medical Research 12
(2003) 91–108. R. L. Berger, D. D. Boos, JASA 89 (1994) 1012–1016.
"""

from __future__ import annotations

import numpy as np

_GRID = 33  # values of q tried; the probability is smooth in q, more change it by less than 1e-4
_TIE = 1e-9  # statistics this close are the same point reached by other arithmetic
_LOST = 1e-9  # probability left out at either end of b
_SHARE = 0.02  # of the level that is spent on the interval of q


def upper_bound(b: int, c: int, n: int, alpha: float) -> float:
    """Return the one-sided upper bound, at level 1 − `alpha`, of p_b − p_c.

    The bound is the end of the test's acceptance region, rounded up by at most 1e-6.
    """
    low = (b - c) / n
    step = 2 * np.sqrt((b + c + 1) / n / n) + 2 / n
    high = low + step
    while high < 1 and p_value(b, c, n, high, alpha) > alpha:
        low, high = high, high + step
    if high >= 1:
        high = 1.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        if p_value(b, c, n, middle, alpha) > alpha:
            low = middle
        else:
            high = middle
    return float(high)


def p_value(b: int, c: int, n: int, delta: float, alpha: float = 0.05) -> float:
    """Return the exact p-value of p_b − p_c >= `delta` against a smaller difference.

    `alpha` only sets how much is spent on the interval of q: γ = alpha / 50.
    """
    gamma = _SHARE * alpha
    rates = _plausible_rates(b + c, n, abs(delta), gamma)
    if rates.size == 0:
        return gamma
    bound = float(score_statistic(np.array([b]), np.array([c]), n, delta)[0]) + _TIE
    return min(1.0, float(_tail(rates, n, delta, bound).max()) + gamma)


def score_statistic(b: np.ndarray, c: np.ndarray, n: int, delta: float) -> np.ndarray:
    """Return Tango's statistic for counts `b` and `c` of any one shape."""
    linear = -(b + c) + (2 * n - b + c) * delta
    constant = -c * delta * (1 - delta)
    root = np.sqrt(np.maximum(linear**2 - 8.0 * n * constant, 0.0))
    p_c = (root - linear) / (4.0 * n)
    spread = np.sqrt(np.maximum(n * (2 * p_c + delta * (1 - delta)), 0.0))
    gap = b - c - n * delta
    z: np.ndarray = np.divide(gap, spread, out=np.zeros_like(root), where=spread > 0)
    return z


def _plausible_rates(k: int, n: int, least: float, gamma: float) -> np.ndarray:
    """Return rates q >= `least` inside the exact 1 − γ interval for k disagreements of n."""
    from scipy import stats

    low = stats.beta.ppf(gamma / 2, k, n - k + 1) if k else 0.0
    high = stats.beta.ppf(1 - gamma / 2, k + 1, n - k) if k < n else 1.0
    if high < least:
        return np.empty(0)
    return np.linspace(max(low, least), high, _GRID)


def _tail(rates: np.ndarray, n: int, delta: float, bound: float) -> np.ndarray:
    """Return P(z <= bound) for each rate of disagreement, shape (rates,)."""
    from scipy import stats

    p_b, p_c = (rates + delta) / 2, np.maximum((rates - delta) / 2, 0.0)
    first = int(stats.binom.ppf(_LOST, n, p_b.min()))
    last = int(stats.binom.isf(_LOST, n, p_b.max()))
    b = np.arange(max(first, 0), min(last, n) + 1)  # (counts,)
    needed = _least_c(b, n, delta, bound)
    weight = stats.binom.pmf(b, n, p_b[:, None])  # (rates, counts)
    share = np.divide(p_c, 1 - p_b, out=np.ones_like(p_c), where=p_b < 1)
    return np.asarray((weight * _at_least(needed, n - b, share[:, None])).sum(axis=1) + 2 * _LOST)


def _at_least(c: np.ndarray, trials: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Return P(Bin(trials, p) >= c): 1 for c = 0, and 0 past the number of trials."""
    from scipy import special

    inside = (c > 0) & (c <= trials)
    tail = special.betainc(np.where(inside, c, 1), np.where(inside, trials - c + 1, 1), p)
    return np.where(inside, tail, (c <= 0) * 1.0)


def _least_c(b: np.ndarray, n: int, delta: float, bound: float) -> np.ndarray:
    """Return for each b the least c with z(b, c) <= bound, or n − b + 1 when there is none.

    z falls as c grows, so halving the interval finds it.
    """
    low, high = np.zeros_like(b), n - b + 1
    while (low < high).any():
        middle = (low + high) // 2
        open_ = low < high
        met = score_statistic(b, middle, n, delta) <= bound
        high = np.where(open_ & met, middle, high)
        low = np.where(open_ & ~met, middle + 1, low)
    return low
