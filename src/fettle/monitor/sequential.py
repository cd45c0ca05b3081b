"""Intervals that hold at every moment at once, however often somebody looks.

An ordinary 95 % interval that is looked at after every request leaves the truth sooner or later. A
confidence sequence doesn't: the chance that it *ever* does is at most `alpha`, so whoever watches
may stop, promote or roll back at any time, for any reason.

All of them are made of one martingale. For a rate p and s hits among n requests, f = n − s misses,

    M(p) = B(½ + s, ½ + f) / B(½, ½) / (p^s (1 − p)^f)

is what betting against p has earned: the likelihood under a Beta(½, ½) mixture of rates over the
likelihood under p. Under p its mean is 1 at any time, so that it ever passes 1/alpha has a chance
of at most alpha (Ville). The interval holds the rates with M(p) < 1/alpha.

- A hit may also be a share from 0 to 1 (of a request's rows, say): M is then a supermartingale.
- A rate that moves: the bounds grow with the hits, so while no request's rate, given all before it,
  passes p, the lower bound ever passes p with a chance of at most alpha; likewise from above.
- Of two rates, M(p₁)·M(p₂) is a martingale too, whatever decides which arm comes next; the interval
  of p₂ − p₁ holds the differences that some pair leaves with a product below 1/alpha.
- "p99 is at most L" says that at most 1 % of requests take longer than L: bound that share.

Requests that follow each other may be alike (a stall makes a run of slow ones). That breaks these
bounds only where a request's rate *given the past* crosses the limit, if for that moment alone.

Sources: H. Robbins, Annals of Mathematical Statistics 41 (1970) 1397–1409 (the mixture). S. R.
Howard, A. Ramdas, J. McAuliffe, J. Sekhon, Annals of Statistics 49 (2021) 1055–1080 (confidence
sequences). I. Waudby-Smith, A. Ramdas, JRSS B 86 (2024) 1–27 (bounded outcomes, by betting).
M. Lindon, A. Malek, NeurIPS 2022 (several counts at once, and what is projected from them). S. R.
Howard, A. Ramdas, Bernoulli 28 (2022) 1704–1728 (quantiles).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from fettle.core.errors import InputError

Side = Literal["below", "above", "open"]
_PRIOR = 0.5  # Jeffreys': as good near 0, where rates of errors live, as in the middle
_HALVINGS = 50


class Interval(NamedTuple):
    """What is known of a rate or of a difference; `estimate` is None before anything was seen."""

    estimate: float | None
    low: float
    high: float

    def side(self, limit: float) -> Side:
        """Say on which side of `limit` the truth is known to be."""
        if self.low > limit:
            return "above"
        return "below" if self.high < limit else "open"


@dataclass
class Tally:
    """Hits among requests; a hit may be a share from 0 to 1."""

    hits: float = 0.0
    n: int = 0

    def add(self, hit: float) -> None:
        """Count one request.

        Raises:
            InputError: no number from 0 to 1.
        """
        if not 0 <= hit <= 1:
            raise InputError(f"`hit` expects a number from 0 to 1, got {hit!r}")
        self.hits += hit
        self.n += 1

    def interval(self, alpha: float = 0.05) -> Interval:
        """Return the interval of the rate, which holds at all times at once."""
        return proportion(self.hits, self.n, alpha)


def log_evidence(hits: Any, n: Any, rate: Any) -> Any:
    """Return ln M(`rate`): what speaks against that rate, for numbers or arrays of any one shape.

    Passing ln(1/alpha), at any time, rejects it at level alpha.
    """
    from scipy import special

    misses = n - hits
    mixture = special.betaln(_PRIOR + hits, _PRIOR + misses) - special.betaln(_PRIOR, _PRIOR)
    return mixture - special.xlogy(hits, rate) - special.xlog1py(misses, -np.asarray(rate))


def proportion(hits: float, n: int, alpha: float = 0.05) -> Interval:
    """Return the interval of a rate after `hits` among `n`; it has the level 1 − `alpha`.

    Its ends are rounded outwards. With no hit in n requests its upper end is near
    (ln(1/alpha) + ½ ln(πn)) / n.

    Raises:
        InputError: `hits` isn't from 0 to `n`, or `alpha` not between 0 and 1.

    Example:
        >>> [round(end, 4) for end in proportion(40, 2000)]
        [0.02, 0.0104, 0.0341]
    """
    _check(hits, n, alpha)
    if n == 0:
        return Interval(None, 0.0, 1.0)
    estimate = hits / n
    threshold = -math.log(alpha)

    def held(rate: float) -> bool:
        return bool(log_evidence(hits, n, rate) < threshold)

    low = 0.0 if hits == 0 else _edge(held, estimate, 0.0)
    high = 1.0 if hits == n else _edge(held, estimate, 1.0)
    return Interval(estimate, low, high)


def difference(first: Tally, second: Tally, alpha: float = 0.05) -> Interval:
    """Return the interval of the second's rate less the first's; it has the level 1 − `alpha`.

    The tallies may be of any sizes, and whatever came before may decide which is next.

    Raises:
        InputError: as `proportion`.
    """
    for tally in (first, second):
        _check(tally.hits, tally.n, alpha)
    if first.n == 0 or second.n == 0:
        return Interval(None, -1.0, 1.0)
    estimate = second.hits / second.n - first.hits / first.n
    threshold = -math.log(alpha)

    def held(delta: float) -> bool:
        return bool(difference_log_evidence(first, second, delta) < threshold)

    return Interval(estimate, _edge(held, estimate, -1.0), _edge(held, estimate, 1.0))


def difference_side(first: Tally, second: Tally, limit: float, alpha: float = 0.05) -> Side:
    """Return `difference(…).side(limit)`, a hundred times as fast: it looks at the limit alone."""
    if first.n == 0 or second.n == 0:
        return "open"
    if difference_log_evidence(first, second, limit) < -math.log(alpha):
        return "open"
    estimate = second.hits / second.n - first.hits / first.n
    return "above" if estimate > limit else "below"


def difference_log_evidence(first: Tally, second: Tally, delta: float) -> float:
    """Return what speaks against a difference `delta`, −1 … 1, of the second's rate to the first's.

    That is the least of ln M(p) + ln M(p + delta) over p: convex, so its minimum is where the slope
    changes sign.
    """
    low, high = max(0.0, -delta), min(1.0, 1.0 - delta)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _slope(first, middle) + _slope(second, middle + delta) < 0:
            low = middle
        else:
            high = middle
    rate = (low + high) / 2
    found = log_evidence(first.hits, first.n, rate)
    return float(found + log_evidence(second.hits, second.n, min(1.0, max(0.0, rate + delta))))


def _slope(tally: Tally, rate: float) -> float:
    """Return the derivative of ln M, infinite where the rate can't be."""
    misses = tally.n - tally.hits
    up = misses / (1 - rate) if rate < 1 else (math.inf if misses else 0.0)
    down = tally.hits / rate if rate > 0 else (math.inf if tally.hits else 0.0)
    return up - down


def _edge(held: Callable[[float], bool], inside: float, outside: float) -> float:
    """Return where `held` ends between a point that is held and the end of the range."""
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        if held(middle):
            inside = middle
        else:
            outside = middle
    return outside


def _check(hits: float, n: int, alpha: float) -> None:
    if not 0 <= hits <= n:
        raise InputError(f"`hits` expects a number from 0 to n = {n}, got {hits!r}")
    if not 0 < alpha < 1:
        raise InputError(f"`alpha` expects a number between 0 and 1, got {alpha!r}")
