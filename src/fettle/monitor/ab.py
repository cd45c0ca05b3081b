"""A/B: whether what answers B's callers is as good as what answers A's, from the log alone.

```python
for trial in compare(open_log("predictions.db"), Plan(share=0.5, margin=0.01)):
    print(trial.verdict, trial.advice)
```

It may be looked at as often as one likes: the interval of the effect, the guardrails and the check
of the arms' sizes are confidence sequences (`sequential`), which hold at every moment at once.

- **Effect**: B's share of right answers less A's, where there are labels; else of answered
  requests. A caller counts once (`_arms` says why). Where the share is told that B was to get, who
  answers is known to be drawn by lot, and less than half as many callers will do (`_effect`).
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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from scipy import stats

from fettle.core.errors import InputError
from fettle.monitor._arms import COLUMNS, Arms, Crossing, Step
from fettle.monitor._effect import Bets, Effect, Rates
from fettle.monitor._pair import Pair, evidence_path
from fettle.monitor._reading import LogFile
from fettle.monitor.latency import fitting
from fettle.monitor.sequential import Interval, Tally, difference, proportion

__all__ = ["Plan", "Trial", "compare", "effect_of", "evidence_path", "needed", "novelty"]

Verdict = Literal["better", "worse", "equivalent", "not worse", "open"]
Trend = Literal["fades", "grows", "steady", "unknown"]
_PAIRS = (("a", "b"), ("primary", "canary"))
_MISMATCH = 0.01  # the chance that sound arms are ever called uneven
_POWER = float(stats.norm.ppf(0.8))
_FEWEST = 5  # callers of an arm from which a window tells something
_STAKES = 2.5  # of evidence, that it costs not to know the effect beforehand
_MOST_CALLERS = 2.0**40  # nobody waits for so many


@dataclass(frozen=True)
class Plan:
    """What is compared, and how.

    Attributes:
        share: of the callers that B was to get, drawn by lot; None leaves the sizes of the arms
            unchecked, and needs more callers.
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
        steps: the effect as it was at the ends of windows, at most some dozens.
        needed: as `needed` tells it.
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
    steps: Sequence[Step]
    needed: Mapping[str, int | None]
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
            "needed": dict(self.needed),
            "guardrails": self._guards(),
            "sizes": self._sizes(),
            "novelty": novelty(self.windows),
            "steps": [
                {"start": step.start / 1e9, "n": step.n, **step.effect._asdict()}
                for step in self.steps
            ],
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


def effect_of(plan: Plan) -> Effect:
    """Return what counts the effect, before anything was counted."""
    if plan.share is None:
        return Rates(plan.alpha)
    return Bets(plan.share, plan.margin, plan.alpha)


def needed(effect: Effect, n: int, margin: float, alpha: float = 0.05) -> dict[str, int | None]:
    """Return how many more callers, of both arms together, would settle what is open.

    If the rates stay what they seem: `difference` until it is certain that they differ, `margin`
    until it is certain on which side of −`margin` the effect is. Each with a chance of four in
    five; 0 where it is settled, None where it never would be.

    Args:
        effect: what is known.
        n: of how many callers.
        margin: the difference that matters.
        alpha: as `Plan`.
    """
    return {
        "difference": _more(effect, n, 0.0, alpha),
        "margin": _more(effect, n, -margin, alpha),
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


def _arms_of(log: LogFile, plan: Plan) -> dict[tuple[str, tuple[str, str]], Arms]:
    """Return empty counts for each model and pair of arms that the log holds."""
    seen = {(origin.model, origin.route) for origin in log.origins.values()}
    width = round((plan.seconds or fitting(log.span)) * 1e9)
    labelled = log.labels > 0
    return {
        (model, parts): _empty(parts, width, plan, labelled)
        for model in sorted({model for model, _ in seen})
        for parts in _PAIRS
        if {(model, part) for part in parts} <= seen
    }


def _empty(parts: tuple[str, str], width: int, plan: Plan, labelled: bool) -> Arms:
    by_lot = parts == _PAIRS[0]  # a canary's share moves
    effect = effect_of(plan) if by_lot else Rates(plan.alpha)
    return Arms(parts, width, -math.log(plan.alpha), plan.classes, labelled, effect)


def _trial(model: str, arms: Arms, plan: Plan) -> Trial:
    each = plan.alpha / 2  # of two guardrails
    guards = {"failed": difference(arms.failed.a, arms.failed.b, each)}
    if arms.slow.n:
        guards["slow"] = difference(arms.slow.a, arms.slow.b, each)
    sizes = None
    if plan.share is not None and arms.parts == _PAIRS[0]:
        sizes = proportion(arms.callers.b.n, arms.callers.n, _MISMATCH)
    arms.settle()
    return Trial(
        model=model,
        parts=arms.parts,
        plan=plan,
        measure="accuracy" if arms.labelled else "answered",
        outcome=arms.outcome,
        effect=arms.effect.interval(),
        crossed=arms.crossed,
        guards=guards,
        mismatch=sizes,
        windows=arms.windows,
        steps=arms.steps,
        needed=needed(arms.effect, arms.outcome.n, plan.margin, plan.alpha),
        limit_ms=None if arms.limit_us is None else arms.limit_us / 1000,
        unmatched=arms.unmatched,
    )


def _more(effect: Effect, n: int, delta: float, alpha: float) -> int | None:
    """Return how many more callers make an effect of `delta` impossible."""
    interval, threshold = effect.interval(), -math.log(alpha)
    if interval.estimate is None:
        return None
    if effect.after(delta, 0.0) >= threshold:
        return 0
    low, enough = 0.0, float(n)
    while effect.after(delta, enough) < threshold:
        low, enough = enough, 2 * enough
        if enough > _MOST_CALLERS:
            return None
    for _ in range(30):
        middle = (low + enough) / 2
        settled = effect.after(delta, middle) >= threshold
        low, enough = (low, middle) if settled else (middle, enough)
    # evidence grows as z²/2: so far it is enough in half of the cases
    z = math.sqrt(2 * (threshold + _STAKES))
    return math.ceil((n + enough) * ((z + _POWER) / z) ** 2 - n)


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
