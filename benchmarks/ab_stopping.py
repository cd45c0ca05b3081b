"""How long does an A/B test run that may be looked at all the time, and does it keep its word?

Simulated: A is right in 90 %, each caller's arm is drawn evenly. First 2,000 tests of two equal
models, looked at after each of 10,000 callers: how many ever say that they differ? Then tests of
models that are 1, 2 and 5 points apart: after how many callers is it certain? Beside it what a test
of fixed size needs for a chance of 80 %, which may be looked at once; and what becomes of that test
when it is looked at all the time. Takes two minutes.

    python benchmarks/ab_stopping.py
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from _results import record, table
from scipy import stats

from fettle.monitor._effect import Bets, Rates
from fettle.monitor._pair import evidence_path
from fettle.monitor.ab import needed

RATE, ALPHA, MARGIN = 0.9, 0.05, 0.01
RUNS, LENGTH, AT_ONCE = 2000, 10_000, 50
Z = float(stats.norm.ppf(1 - ALPHA / 2))
RNG = np.random.default_rng(0)
Path = Callable[[np.ndarray, np.ndarray], np.ndarray]
RUNS_APART = 200
EFFECTS = ((-0.05, 1, 1), (-0.02, 3, 5), (-0.01, 10, 20))
"""Of B less A, and how long each test runs at most, in `LENGTH`."""


def main() -> None:
    """Simulate, and write the tables."""
    same = [
        same_models("drawn by lot", by_lot, RATE),
        same_models("drawn by lot", by_lot, np.linspace(0.95, 0.6, LENGTH)),
        *(same_models("two rates", evidence_path, rate) for rate in (0.5, RATE, 0.99)),
        same_models("ordinary, watched", ordinary, RATE),
    ]
    apart = [
        models_apart(name, path, effect, RUNS_APART, times * LENGTH)
        for effect, *lengths in EFFECTS
        for (name, path), times in zip(TESTS.items(), lengths, strict=True)
    ]
    head = ("test", "A and B are right", "ever said to differ", "95 % interval")
    more = ("B less A", "test", "found", "mean", "median", "four of five", "foreseen", "fixed size")
    record(
        "ab-stopping",
        "A/B tests that may be looked at after every caller",
        [
            f"{RUNS:,} tests of two equal models, {LENGTH:,} callers each, looked at after each."
            f" Promised: at most {ALPHA:.0%}. *Drawn by lot* is the test where B's share is known,"
            f" its stakes laid for a margin of {100 * MARGIN:g} point; *two rates* where it isn't."
            f" *Ordinary* is the two-proportion z-test at {ALPHA:.0%}, from the hundredth caller"
            " on.",
            "",
            *table(head, same),
            "",
            f"Models that differ; A is right in {RATE:.0%}. Callers of both arms together until it"
            " is certain; tests that never were count with their whole length. *Foreseen* is what"
            " `needed` says for a chance of four in five when it has seen 400 callers with these"
            " very rates. *Fixed size* is what an ordinary test needs for the same chance, looked"
            " at once, at the end.",
            "",
            *table(more, apart),
        ],
    )


def callers(runs: int, length: int, effect: float, rate: float | np.ndarray) -> Iterator[tuple]:
    """Yield arms and hits of some runs at once, shape (runs, length)."""
    for start in range(0, runs, AT_ONCE):
        shape = (min(AT_ONCE, runs - start), length)
        arms = RNG.integers(0, 2, shape)
        yield arms, (RNG.random(shape) < rate + effect * arms).astype(float)


def by_lot(arms: np.ndarray, hits: np.ndarray) -> np.ndarray:
    """Return the evidence of the test by lot after each caller, shape (runs, length)."""
    pairs = zip(arms, hits, strict=True)
    return np.array([Bets(0.5, MARGIN, ALPHA).path(*pair) for pair in pairs])


TESTS: dict[str, Path] = {"drawn by lot": by_lot, "two rates": evidence_path}


def ordinary(arms: np.ndarray, hits: np.ndarray) -> np.ndarray:
    """Return the z-test after each caller, as evidence that passes where the test rejects."""
    n = np.arange(1, arms.shape[1] + 1.0)
    n_b = np.cumsum(arms, 1, dtype=float)
    hits_b, all_hits = np.cumsum(arms * hits, 1), np.cumsum(hits, 1)
    n_a, rate = n - n_b, all_hits / n
    with np.errstate(all="ignore"):
        gap = hits_b / n_b - (all_hits - hits_b) / n_a
        z = np.abs(gap) / np.sqrt(rate * (1 - rate) * (1 / n_a + 1 / n_b))
    return np.where((n >= 100) & (z >= Z), -math.log(ALPHA), 0.0)


def same_models(name: str, path: Path, rate: float | np.ndarray) -> list[str]:
    """Return one line of the first table."""
    crossed = sum(
        int((path(*drawn) >= -math.log(ALPHA)).any(1).sum())
        for drawn in callers(RUNS, LENGTH, 0.0, rate)
    )
    low, high = stats.binomtest(crossed, RUNS).proportion_ci(0.95, "exact")
    shown = f"{rate:.0%}" if np.ndim(rate) == 0 else f"{rate[0]:.0%}, falling to {rate[-1]:.0%}"
    found = f"{crossed / RUNS:.2%} ({crossed} of {RUNS:,})"
    return [name, shown, found, f"[{low:.2%}, {high:.2%}]"]


def models_apart(name: str, path: Path, effect: float, runs: int, length: int) -> list[str]:
    """Return one line of the second table."""
    stopped, found = [], 0
    for drawn in callers(runs, length, effect, RATE):
        crossed = path(*drawn) >= -math.log(ALPHA)
        sure = crossed.any(1)
        found += int(sure.sum())
        stopped += np.where(sure, crossed.argmax(1) + 1, length).tolist()
    shown = [np.mean(stopped), np.median(stopped), np.quantile(stopped, 0.8)]
    counts = [f"{number:,.0f}" for number in (*shown, foreseen(name, effect), fixed(effect))]
    return [f"{100 * effect:+.0f} points", name, f"{found / runs:.1%}", *counts]


def foreseen(name: str, effect: float) -> float:
    """Return what `needed` says after 400 callers who had these very rates."""
    seen = Bets(0.5, MARGIN, ALPHA) if name == "drawn by lot" else Rates(ALPHA)
    arms, turn = np.tile([0, 1], 200), np.repeat(np.arange(200), 2)
    rates = np.where(arms == 1, RATE + effect, RATE)
    seen.add(arms, (turn * 37 % 200 < 200 * rates - 1e-9).astype(float))
    return 400 + (needed(seen, 400, MARGIN, ALPHA)["difference"] or 0)


def fixed(effect: float) -> float:
    """Return the callers that a z-test needs for a power of 80 %, both arms together."""
    other = RATE + effect
    variance = RATE * (1 - RATE) + other * (1 - other)
    return 2 * variance * ((Z + float(stats.norm.ppf(0.8))) / effect) ** 2


if __name__ == "__main__":
    main()
