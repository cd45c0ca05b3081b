"""A/B: whether what answers B's callers is as good as what answers A's, from the log alone.

```python
for trial in compare(open_log("predictions.db"), Plan(share=0.5, margin=0.01)):
    print(trial.verdict, trial.advice)
```

It may be looked at as often as one likes: the interval of the effect, the guardrails and the check
of the arms' sizes are confidence sequences (`sequential`), which hold at every moment at once.

- **Effect**: B's share of right answers less A's, where there are labels; else of answered
  requests. A caller counts once (`_arms` says why).
- **Guardrails**: failures, of all requests; and answers slower than A's own p99, which the first
  thousand of A's settle before any is counted.
- **Sizes of the arms**: a sample-ratio mismatch, against the share that was set, means that
  callers are lost or doubled in one arm, and makes everything else worthless.
- **Novelty**: the effect by window, and whether it fades or grows (weighted least squares).

Of a canary, whose share moves with time, the arms' sizes are not checked, and inputs that drift
meanwhile may look like an effect: read it beside the canary's own decisions.

Sources: A. Fabijan et al., KDD 2019 (sample-ratio mismatch). M. Lindon, A. Malek, NeurIPS 2022
(checking it at every moment). A. Deng, U. Knoblich, J. Lu, KDD 2018 (what is drawn by lot is what
must be counted).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from scipy import stats

from fettle.core.errors import InputError
from fettle.monitor._arms import COLUMNS, Arms, Crossing, Pair, evidence_path
from fettle.monitor._reading import LogFile
from fettle.monitor.latency import fitting
from fettle.monitor.sequential import (
    Interval,
    Tally,
    difference,
    difference_log_evidence,
    proportion,
)

__all__ = ["Plan", "Trial", "compare", "evidence_path", "needed", "novelty"]

Verdict = Literal["better", "worse", "equivalent", "not worse", "open"]
Trend = Literal["fades", "grows", "steady", "unknown"]
_PAIRS = (("a", "b"), ("primary", "canary"))
_MISMATCH = 0.01  # the chance that sound arms are ever called uneven
_POWER = float(stats.norm.ppf(0.8))
_MOST_STEPS = 60  # of the effect over time
_FEWEST = 5  # callers of an arm from which a window tells something
_MOST_TIMES = 2.0**20  # as many callers as there were: nobody waits for that


@dataclass(frozen=True)
class Plan:
    """What is compared, and how.

    Attributes:
        share: of the callers that B was to get; None leaves the sizes of the arms unchecked.
        margin: the difference of shares from which on it matters.
        slower: how many more of B's answers may pass A's p99, as a share.
        failing: how many more of B's requests may fail, as a share.
        alpha: the chance that the interval of the effect ever misses; the guardrails share another.
        seconds: of a window; None for some dozens in all.
        classes: numbers of classes by their names, for labels that are names.

    Raises:
        InputError: a share or a level that isn't between 0 and 1.
    """

    share: float | None = None
    margin: float = 0.01
    slower: float = 0.01
    failing: float = 0.01
    alpha: float = 0.05
    seconds: float | None = None
    classes: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("share", "margin", "slower", "failing", "alpha"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                raise InputError(f"`{name}` expects a number between 0 and 1, got {value!r}")


@dataclass(frozen=True)
class Trial:
    """What is known of B against A.

    Attributes:
        model: what callers asked for.
        parts: the arms' routes in the log.
        measure: "accuracy", or "answered" where there are no labels.
        outcome: right answers of callers, by arm.
        effect: B's share less A's, with its interval.
        crossed: when it first was certain that they differ.
        guards: by name, how much more often B failed or was slow.
        mismatch: the share of callers that B got, with its interval; None where it isn't known
            what it should be.
        windows: the outcome by the start of the window, in nanoseconds of the epoch.
        limit_ms: what an answer must pass to be slow.
        unmatched: labels that name no class.
    """

    model: str
    parts: tuple[str, str]
    plan: Plan
    measure: str
    outcome: Pair
    effect: Interval
    crossed: Crossing | None
    guards: Mapping[str, Interval]
    mismatch: Interval | None
    windows: Mapping[int, Pair]
    limit_ms: float | None = None
    unmatched: int = 0

    @property
    def verdict(self) -> Verdict:
        """Say where the effect is known to be."""
        _, low, high = self.effect
        margin = self.plan.margin
        if low > 0:
            return "better"
        if high < 0:
            return "worse"
        if low > -margin:
            return "equivalent" if high < margin else "not worse"
        return "open"

    @property
    def mismatched(self) -> bool:
        """Whether the arms' sizes can't be chance."""
        if self.mismatch is None or self.plan.share is None:
            return False
        return self.mismatch.side(self.plan.share) != "open"

    @property
    def broken(self) -> list[str]:
        """The guardrails that B is past for certain."""
        limits = {"failed": self.plan.failing, "slow": self.plan.slower}
        return [name for name, guard in self.guards.items() if guard.low > limits[name]]

    @property
    def kept(self) -> bool:
        """Whether B is within all guardrails for certain."""
        limits = {"failed": self.plan.failing, "slow": self.plan.slower}
        return all(guard.high <= limits[name] for name, guard in self.guards.items())

    @property
    def advice(self) -> str:
        """Say what follows, in one sentence."""
        if self.mismatched:
            return "Don't trust it: the arms' sizes are not what the split gives; find out why."
        if self.broken:
            why = " and ".join({"failed": "fails", "slow": "is slow"}[name] for name in self.broken)
            return f"Stop B: it {why} more often than is allowed."
        if self.verdict == "worse":
            return "Keep A: B is worse."
        if self.verdict == "open":
            return "Go on: the effect isn't known well enough."
        if not self.kept:
            return "Go on: B is as good, but its guardrails aren't known well enough."
        return "Take B: it is better." if self.verdict == "better" else "Take B: it isn't worse."

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form; times are seconds of the epoch."""
        crossed = self.crossed
        return {
            "model": self.model,
            "arms": list(self.parts),
            "measure": self.measure,
            "verdict": self.verdict,
            "advice": self.advice,
            "effect": {**self.effect._asdict(), "confidence": 1 - self.plan.alpha},
            "margin": self.plan.margin,
            "a": _rate(self.outcome.a, self.plan.alpha),
            "b": _rate(self.outcome.b, self.plan.alpha),
            "crossed": crossed and {"time": crossed.time / 1e9, "n": crossed.n},
            "needed": needed(self.outcome, self.plan.margin, self.plan.alpha),
            "guardrails": self._guards(),
            "sizes": self._sizes(),
            "novelty": novelty(self.windows),
            "steps": steps(self.windows, self.plan.alpha),
            "unmatched_labels": self.unmatched,
        }

    def _guards(self) -> dict[str, Any]:
        limits = {"failed": self.plan.failing, "slow": self.plan.slower}
        told = {
            name: {**guard._asdict(), "limit": limits[name], "side": guard.side(limits[name])}
            for name, guard in self.guards.items()
        }
        if "slow" in told:
            told["slow"]["limit_ms"] = self.limit_ms
        return told

    def _sizes(self) -> dict[str, Any] | None:
        if self.mismatch is None:
            return None
        told = self.mismatch._asdict()
        return {**told, "expected": self.plan.share, "mismatch": self.mismatched}


def compare(log: LogFile, plan: Plan | None = None) -> list[Trial]:
    """Return the A/B tests that a log holds, one for each model that had two arms.

    Args:
        log: of any length; it is read once, in the order of time.
        plan: what is compared.

    Raises:
        DataError: the log is damaged.
    """
    chosen = plan or Plan()
    found = _arms_of(log, chosen)
    for frame in log.frames(COLUMNS) if found else ():
        for (model, parts), arms in found.items():
            names = [
                number
                for number, origin in frame.origins.items()
                if origin.model == model and origin.route in parts
            ]
            arms.add(frame.take(np.isin(frame["origin"], names)))
    return [_trial(model, arms, chosen) for (model, _), arms in found.items()]


def needed(outcome: Pair, margin: float, alpha: float = 0.05) -> dict[str, int | None]:
    """Return how many more callers, of both arms together, would settle what is open.

    If the rates stay what they seem: `difference` until it is certain that they differ, `margin`
    until it is certain on which side of −`margin` the effect is. Each with a chance of four in
    five; 0 where it is settled, None where it never would be.
    """
    return {
        "difference": _more(outcome, 0.0, alpha),
        "margin": _more(outcome, -margin, alpha),
    }


def novelty(windows: Mapping[int, Pair]) -> dict[str, Any]:
    """Return whether the effect changes over time: B's effect as a line through its windows.

    Ordinary 95 % intervals, for one look; windows of few callers are left out.
    """
    known = [(start, pair) for start, pair in sorted(windows.items()) if _tells(pair)]
    told = [{"start": start / 1e9, "n": pair.n, **_plain(pair)._asdict()} for start, pair in known]
    if len(known) < 4:
        return {"trend": "unknown", "change": None, "windows": told}
    effects = np.array([_plain(pair).estimate for _, pair in known], float)
    weights = 1 / np.array([_variance(pair) for _, pair in known])
    when = np.array([start for start, _ in known], float)
    when = (when - when[0]) / (when[-1] - when[0])
    middle = np.average(when, weights=weights)
    spread = float((weights * (when - middle) ** 2).sum())
    slope = float((weights * (when - middle) * effects).sum() / spread)
    half = float(stats.norm.ppf(0.975)) / math.sqrt(spread)
    first = float(np.average(effects, weights=weights)) - slope * float(middle)
    return {
        "trend": _trend(first, slope, half),
        "change": {"estimate": slope, "low": slope - half, "high": slope + half},
        "windows": told,
    }


def steps(windows: Mapping[int, Pair], alpha: float = 0.05) -> list[dict[str, Any]]:
    """Return the interval of the effect as it was after each window, at most some dozens."""
    so_far, found = Pair(), []
    starts = sorted(windows)
    shown = set(starts[:: -(-len(starts) // _MOST_STEPS)] or []) | set(starts[-1:])
    for start in starts:
        for mine, theirs in ((so_far.a, windows[start].a), (so_far.b, windows[start].b)):
            mine.hits, mine.n = mine.hits + theirs.hits, mine.n + theirs.n
        if start in shown:
            effect = difference(so_far.a, so_far.b, alpha)
            found.append({"start": start / 1e9, "n": so_far.n, **effect._asdict()})
    return found


def _arms_of(log: LogFile, plan: Plan) -> dict[tuple[str, tuple[str, str]], Arms]:
    """Return empty counts for each model and pair of arms that the log holds."""
    seen = {(origin.model, origin.route) for origin in log.origins.values()}
    width = round((plan.seconds or fitting(log.span)) * 1e9)
    labelled = log.labels > 0
    return {
        (model, parts): Arms(parts, width, -math.log(plan.alpha), plan.classes, labelled)
        for model in sorted({model for model, _ in seen})
        for parts in _PAIRS
        if {(model, part) for part in parts} <= seen
    }


def _trial(model: str, arms: Arms, plan: Plan) -> Trial:
    each = plan.alpha / 2  # of two guardrails
    guards = {"failed": difference(arms.failed.a, arms.failed.b, each)}
    if arms.slow.n:
        guards["slow"] = difference(arms.slow.a, arms.slow.b, each)
    sizes = None
    if plan.share is not None and arms.parts == _PAIRS[0]:  # a canary's share moves
        sizes = proportion(arms.callers.b.n, arms.callers.n, _MISMATCH)
    return Trial(
        model=model,
        parts=arms.parts,
        plan=plan,
        measure="accuracy" if arms.labelled else "answered",
        outcome=arms.outcome,
        effect=difference(arms.outcome.a, arms.outcome.b, plan.alpha),
        crossed=arms.crossed,
        guards=guards,
        mismatch=sizes,
        windows=arms.windows,
        limit_ms=None if arms.limit_us is None else arms.limit_us / 1000,
        unmatched=arms.unmatched,
    )


def _more(outcome: Pair, delta: float, alpha: float) -> int | None:
    """Return how many more callers make a difference of `delta` impossible."""
    if not outcome.a.n or not outcome.b.n:
        return None
    threshold = -math.log(alpha)
    if _evidence(outcome, delta, 1.0) >= threshold:
        return 0
    enough = 1.0
    while _evidence(outcome, delta, enough) < threshold:
        enough *= 2
        if enough > _MOST_TIMES:
            return None
    low = enough / 2
    for _ in range(20):
        middle = (low + enough) / 2
        low, enough = (middle, enough) if _evidence(outcome, delta, middle) < threshold else (
            low, middle)  # fmt: skip
    # evidence grows as z²/2: so far it is enough in half of the cases
    z = math.sqrt(2 * (threshold + math.log(outcome.n * enough) / 2))
    return math.ceil(outcome.n * (enough * ((z + _POWER) / z) ** 2 - 1))


def _evidence(outcome: Pair, delta: float, times: float) -> float:
    first, second = (Tally(t.hits * times, math.ceil(t.n * times)) for t in (outcome.a, outcome.b))
    return difference_log_evidence(first, second, delta)


def _rate(tally: Tally, alpha: float) -> dict[str, Any]:
    return {"n": tally.n, **tally.interval(alpha)._asdict()}


def _tells(pair: Pair) -> bool:
    return min(pair.a.n, pair.b.n) >= _FEWEST


def _variance(pair: Pair) -> float:
    """Return the variance of a window's effect; one hit and one miss are added to each arm."""
    rates = [((t.hits + 1) / (t.n + 2), t.n + 2) for t in (pair.a, pair.b)]
    return sum(rate * (1 - rate) / n for rate, n in rates)


def _plain(pair: Pair) -> Interval:
    """Return a window's effect with an ordinary 95 % interval (Agresti and Caffo, 2000)."""
    effect = pair.b.hits / pair.b.n - pair.a.hits / pair.a.n
    middle = (pair.b.hits + 1) / (pair.b.n + 2) - (pair.a.hits + 1) / (pair.a.n + 2)
    half = float(stats.norm.ppf(0.975)) * math.sqrt(_variance(pair))
    return Interval(effect, max(-1.0, middle - half), min(1.0, middle + half))


def _trend(first: float, slope: float, half: float) -> Trend:
    if abs(slope) <= half:
        return "steady"
    return "fades" if abs(first + slope) < abs(first) else "grows"
