"""How long does an A/B test run that may be looked at all the time, and does it keep its word?

Simulated: A is right in 90 %, each caller's arm is drawn evenly. First 2,000 tests of two equal
models, looked at after each of 20,000 callers: how many ever say that they differ? Then tests of
models that are 1, 2 and 5 points apart: after how many callers is it certain? Beside it what a test
of fixed size needs for a chance of 80 %, which may be looked at once; and what becomes of that test
when it is looked at all the time. Takes two minutes.

    python benchmarks/ab_stopping.py
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from _results import record, table
from scipy import stats

from fettle.monitor._arms import Pair
from fettle.monitor.ab import evidence_path, needed
from fettle.monitor.sequential import Tally

RATE, ALPHA = 0.9, 0.05
RUNS, LENGTH, AT_ONCE = 2000, 20_000, 50
EFFECTS = ((-0.05, 500, 8_000), (-0.02, 500, 40_000), (-0.01, 500, 160_000))
Z = float(stats.norm.ppf(1 - ALPHA / 2))
RNG = np.random.default_rng(0)


def main() -> None:
    """Simulate, and write the tables."""
    same = [same_models(rate) for rate in (0.5, RATE, 0.99)]
    apart = [models_apart(*effect) for effect in EFFECTS]
    head = ("A and B are right", "ever said to differ", "95 % interval", "ordinary test, watched")
    more = ("B less A", "found", "mean", "median", "four of five", "foreseen", "fixed size")
    record(
        "ab-stopping",
        "A/B tests that may be looked at after every caller",
        [
            f"{RUNS:,} tests of two equal models, {LENGTH:,} callers each, looked at after each."
            f" Promised: at most {ALPHA:.0%}. The ordinary test is the two-proportion z-test at"
            f" {ALPHA:.0%}, looked at after each caller from the hundredth on.",
            "",
            *table(head, same),
            "",
            f"Models that differ; A is right in {RATE:.0%}. Callers of both arms together until it"
            " is certain; tests that never were count with their whole length. *Foreseen* is what"
            " `needed` says for a chance of four in five when it knows the rates. *Fixed size* is"
            " what an ordinary test needs for the same chance, looked at once, at the end.",
            "",
            *table(more, apart),
        ],
    )


def callers(runs: int, length: int, effect: float, rate: float) -> Iterator[tuple]:
    """Yield arms and hits of some runs at once, shape (runs, length)."""
    for start in range(0, runs, AT_ONCE):
        shape = (min(AT_ONCE, runs - start), length)
        arms = RNG.integers(0, 2, shape)
        yield arms, RNG.random(shape) < np.where(arms == 1, rate + effect, rate)


def same_models(rate: float) -> list[str]:
    """Return one line of the first table."""
    ours = theirs = 0
    for arms, hits in callers(RUNS, LENGTH, 0.0, rate):
        ours += int((evidence_path(arms, hits) >= -math.log(ALPHA)).any(1).sum())
        theirs += int((ordinary(arms, hits) >= Z).any(1).sum())
    low, high = stats.binomtest(ours, RUNS).proportion_ci(0.95, "exact")
    found = f"{ours / RUNS:.2%} ({ours} of {RUNS:,})"
    return [f"{rate:.0%}", found, f"[{low:.2%}, {high:.2%}]", f"{theirs / RUNS:.0%}"]


def ordinary(arms: np.ndarray, hits: np.ndarray) -> np.ndarray:
    """Return |z| of the two-proportion test after each caller, 0 before the hundredth."""
    n = np.arange(1, arms.shape[1] + 1.0)
    n_b = np.cumsum(arms, 1, dtype=float)
    hits_b, all_hits = np.cumsum(arms * hits, 1, dtype=float), np.cumsum(hits, 1, dtype=float)
    n_a, rate = n - n_b, all_hits / n
    with np.errstate(all="ignore"):
        gap = hits_b / n_b - (all_hits - hits_b) / n_a
        z = np.abs(gap) / np.sqrt(rate * (1 - rate) * (1 / n_a + 1 / n_b))
    return np.where((n >= 100) & np.isfinite(z), z, 0.0)


def models_apart(effect: float, runs: int, length: int) -> list[str]:
    """Return one line of the second table."""
    stopped, found = [], 0
    for arms, hits in callers(runs, length, effect, RATE):
        crossed = evidence_path(arms, hits) >= -math.log(ALPHA)
        sure = crossed.any(1)
        found += int(sure.sum())
        stopped += np.where(sure, crossed.argmax(1) + 1, length).tolist()
    some = 200.0
    seen = Pair(Tally(RATE * some, 200), Tally((RATE + effect) * some, 200))
    foreseen = (needed(seen, 0.01, ALPHA)["difference"] or 0) + 400
    shown = [np.mean(stopped), np.median(stopped), np.quantile(stopped, 0.8), foreseen]
    counts = [f"{number:,.0f}" for number in (*shown, fixed(effect))]
    return [f"{100 * effect:+.0f} points", f"{found / runs:.1%}", *counts]


def fixed(effect: float) -> float:
    """Return the callers that a z-test needs for a power of 80 %, both arms together."""
    other = RATE + effect
    variance = RATE * (1 - RATE) + other * (1 - other)
    return 2 * variance * ((Z + float(stats.norm.ppf(0.8))) / effect) ** 2


if __name__ == "__main__":
    main()
