"""The verdict: a paired non-inferiority test of a candidate against its baseline.

Both models answer the same examples, so only those where they differ bear on the drop; pairing
makes the test several times sharper than comparing two accuracies. See rule 5 of the rules of
measurement.
"""

from __future__ import annotations

import math

import numpy as np

from fettle.core.errors import DataError
from fettle.core.measurement import Measurement
from fettle.core.verdict import Budget, Drop, Verdict
from fettle.measure._bootstrap import mean_bounds
from fettle.measure._bounded import lower_mean, upper_mean
from fettle.measure._paired_binary import upper_bound

EXACT = "exact paired test (Tango's statistic, Berger-Boos)"
BOUNDED = "paired bound for scores in 0 … 1 (Gaffke)"
BOOTSTRAP = "paired studentised bootstrap"
_ENDS = ((lower_mean, -1.0), (upper_mean, 1.0))  # of a difference of two shares
_POWER = 0.8
_FAR = 10**9  # more examples than this are no advice


def drop_of(
    baseline_scores: np.ndarray,
    candidate_scores: np.ndarray,
    confidence: float = 0.95,
    seed: int = 0,
) -> Drop:
    """Return how far the mean score drops from baseline to candidate, with one-sided bounds.

    The scores, shape (n,) each, belong to the same examples in the same order. `low` and `high`
    are each one-sided bounds at `confidence`; together they make an interval of 2 · confidence − 1.

    For scores of 0 and 1 the bounds come from an exact unconditional test: the share of studies
    in which `high` falls below the true drop is at most 1 − confidence for every n and every
    rate of disagreement. For other scores in 0 … 1 they are Gaffke's, which allow for a large loss
    that wasn't seen. For scores without a known range they come from a studentised bootstrap, drawn
    by `seed`: it kept its level in simulation from n = 100 on, but, like all that don't know the
    range of a score, it is too short where rare, large losses were not seen in the sample.

    Raises:
        DataError: no scores, different lengths, not one number an example, or one that is no
            finite number; fewer than 2 examples when the scores are not 0 and 1.
    """
    baseline, candidate = _pair(baseline_scores, candidate_scores)
    differences = baseline - candidate
    n, value = len(differences), float(differences.mean())
    if _is_binary(baseline) and _is_binary(candidate):
        lost, won = int((differences > 0).sum()), int((differences < 0).sum())
        high = upper_bound(lost, won, n, 1 - confidence)
        low = -upper_bound(won, lost, n, 1 - confidence)
        return Drop(value, low, high, n, EXACT)
    _need_two(n)
    if _is_share(baseline) and _is_share(candidate):
        low, high = (f(differences, end, 1 - confidence) for f, end in _ENDS)
        return Drop(value, low, high, n, BOUNDED)
    low, high = mean_bounds(differences, _span(baseline, candidate, value), confidence, seed)
    return Drop(value, low, high, n, BOOTSTRAP)


def verdict_of(
    baseline_scores: np.ndarray, candidate_scores: np.ndarray, budget: Budget, seed: int = 0
) -> Verdict:
    """Return pass, fail or inconclusive for a candidate against a budget.

    When inconclusive, `needed` is how many examples would settle it with 80 % probability if
    further ones are like these; None when the drop lies on the budget, where none ever would.

    Raises:
        DataError: as `drop_of`.
    """
    drop = drop_of(baseline_scores, candidate_scores, budget.confidence, seed)
    baseline, candidate = _pair(baseline_scores, candidate_scores)
    return Verdict.of(drop, budget, _needed(baseline - candidate, budget))


def proportion_interval(
    scores: np.ndarray, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Return the two-sided interval of a mean score, shape (n,).

    For scores of 0 and 1 it is Clopper and Pearson's (Biometrika 26, 1934), which never covers
    less than `confidence`; for others in 0 … 1 Gaffke's; else the studentised bootstrap.

    Raises:
        DataError: no scores, or no finite numbers; fewer than 2 that are not 0 and 1.
    """
    from scipy import stats

    values, _ = _pair(scores, scores)
    n, alpha = len(values), 1 - confidence
    if not _is_binary(values):
        _need_two(n)
        if _is_share(values):
            return lower_mean(values, 0.0, alpha / 2), upper_mean(values, 1.0, alpha / 2)
        span = _span(values, np.zeros_like(values), float(values.mean()))
        return mean_bounds(values, span, 1 - alpha / 2, seed)
    right = int(values.sum())
    low = float(stats.beta.ppf(alpha / 2, right, n - right + 1)) if right else 0.0
    high = float(stats.beta.ppf(1 - alpha / 2, right + 1, n - right)) if right < n else 1.0
    return low, high


def mean_score(scores: np.ndarray, metric: str = "top1", confidence: float = 0.95) -> Measurement:
    """Return the mean score with its interval, as a measurement.

    Raises:
        DataError: as `proportion_interval`.
    """
    low, high = proportion_interval(scores, confidence)
    value = float(np.mean(scores, dtype=np.float64))
    return Measurement(metric, value, "share", "higher", low, high, len(scores))


def _needed(differences: np.ndarray, budget: Budget) -> int | None:
    """Return the n at which a bound clears the budget with 80 % probability.

    Normal approximation, with half a disagreement added so that none seen doesn't mean none
    ever; and never fewer than the exact test needs when there is none at all.
    """
    from scipy import stats

    n, gap = len(differences), abs(budget.max_drop - float(differences.mean()))
    variance = float(differences.var()) + 0.5 / (n + 1)
    reach = float(stats.norm.ppf(budget.confidence) + stats.norm.ppf(_POWER))
    if gap * math.sqrt(_FAR) <= reach * math.sqrt(variance):
        return None
    by_power = reach**2 * variance / gap**2
    by_silence = math.log(1 - budget.confidence) / math.log1p(-min(gap, 0.99))
    return max(n + 1, math.ceil(by_power), math.ceil(by_silence))


def _pair(baseline: np.ndarray, candidate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = (np.asarray(scores, dtype=np.float64) for scores in (baseline, candidate))
    if a.ndim != 1 or a.shape != b.shape or a.size == 0:
        raise DataError(
            "a paired test expects one score an example from both models, on the same examples:"
            f" two arrays of one shape (n,), got {list(a.shape)} and {list(b.shape)}"
        )
    wrong = int((~np.isfinite(a) | ~np.isfinite(b)).sum())
    if wrong:
        raise DataError(
            f"{wrong} of {len(a)} scores are no finite numbers; find the examples that cause it:"
            " leaving them out would make the verdict about other data"
        )
    return a, b


def _is_binary(scores: np.ndarray) -> bool:
    return bool(((scores == 0) | (scores == 1)).all())


def _is_share(scores: np.ndarray) -> bool:
    return bool(((scores >= 0) & (scores <= 1)).all())


def _need_two(n: int) -> None:
    if n < 2:
        raise DataError("scores other than 0 and 1 expect at least 2 examples, got 1: add data")


def _span(a: np.ndarray, b: np.ndarray, mean: float) -> float:
    """Return how far a difference may lie from `mean`, as far as these scores show it."""
    least, most = min(a.min(), b.min()), max(a.max(), b.max())
    return float(most - least) + abs(mean)
