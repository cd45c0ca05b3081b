"""A canary's trial: what is counted, what is known, and what follows from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

from fettle.monitor.sequential import Interval, Side, Tally, difference, difference_side
from fettle.serve.rollout.decisions import Decision, Kind

State = Literal["running", "rolled back", "refused"]
_SLOW = 0.01  # that is what p99 means
_ENDED: dict[Kind, State] = {"rollback": "rolled back", "refuse": "refused"}


@dataclass(frozen=True)
class Limits:
    """What a canary is held to; None leaves a measure out.

    Attributes:
        steps: shares of the callers; after the last it answers all.
        least: requests that it answers at each step, at least.
        disagreement: share of answers in which it may differ from the primary's.
        errors: how much more often its requests may fail than the primary's.
        p99_s: seconds that at most 1 % of its requests may pass.
        alpha: the chance that any interval, of any measure at any step, ever misses the truth.
    """

    steps: tuple[float, ...]
    least: int = 100
    disagreement: float | None = 0.05
    errors: float = 0.01
    p99_s: float | None = None
    alpha: float = 0.05

    @property
    def each(self) -> float:
        """What of alpha each interval gets: one of disagreement, and those of every step."""
        of_a_step = 1 if self.p99_s is None else 2
        return self.alpha / (1 + of_a_step * (len(self.steps) + 1))


class Measure(NamedTuple):
    """One measure: what it counted, on which side of its limit it is, and where it is known to be.

    The interval is worked out when it is asked for: the side costs far less.
    """

    tally: Tally
    limit: float
    side: Side
    interval: Callable[[], Interval]


@dataclass
class Trial:
    """One canary against one primary.

    Disagreement is counted over the whole trial, failures and slow requests at each step anew, for
    they depend on the load; the primary's failures over the whole trial.

    Attributes:
        primary, canary: which bundles.
        limits: what it is held to.
        step: of `limits.steps`; as many as there are once the canary answers all.
        state: whether it goes on.
    """

    primary: str
    canary: str
    limits: Limits
    step: int = 0
    state: State = "running"
    disagreement: Tally = field(default_factory=Tally)
    base: Tally = field(default_factory=Tally)
    errors: Tally = field(default_factory=Tally)
    slow: Tally = field(default_factory=Tally)

    @property
    def complete(self) -> bool:
        """Whether the canary answers all."""
        return self.step >= len(self.limits.steps)

    @property
    def share(self) -> float:
        """The share of the callers that it answers."""
        return self._share(self.step) if self.state == "running" else 0.0

    def copy(self) -> Trial:
        """Return what can be looked at while this counts on."""
        tallies = {k: Tally(v.hits, v.n) for k, v in vars(self).items() if isinstance(v, Tally)}
        return Trial(self.primary, self.canary, self.limits, self.step, self.state, **tallies)

    def answered(self, canary: bool, failed: bool, seconds: float) -> None:
        """Count one request, by who answered it."""
        if not canary:
            self.base.add(failed)
            return
        self.errors.add(failed)
        if self.limits.p99_s is not None:
            self.slow.add(seconds > self.limits.p99_s)

    def measures(self) -> dict[str, Measure]:
        """Return what is known now, by name."""
        limits, found = self.limits, {}
        if limits.disagreement is not None:
            found["disagreement"] = _measure(self.disagreement, limits.disagreement, limits.each)
        if self.share:
            found["errors"] = Measure(
                self.errors,
                limits.errors,
                difference_side(self.base, self.errors, limits.errors, limits.each),
                partial(difference, self.base, self.errors, limits.each),
            )
            if limits.p99_s is not None:
                found["p99"] = _measure(self.slow, _SLOW, limits.each)
        return found

    def decide(self, model: str) -> Decision | None:
        """Return what follows from what is known; None where nothing does yet."""
        if self.state != "running":
            return None
        measures = self.measures()
        crossed = [name for name, measure in measures.items() if measure.side == "above"]
        if crossed:
            reason = "; ".join(_worded(name, measures[name]) for name in crossed)
            return self.decision("rollback", model, reason, self.step, measures)
        within = all(measure.side == "below" for measure in measures.values())
        if self.complete or not within or not self._enough:
            return None
        reason = "; ".join(_worded(name, measure) for name, measure in measures.items())
        last = self.step + 1 == len(self.limits.steps)
        kind: Kind = "complete" if last else "promote"
        return self.decision(kind, model, reason, self.step + 1, measures)

    def by_hand(self, up: bool, model: str, reason: str) -> Decision:
        """Return the decision of a person: the next step, or none from now on."""
        told = f"by hand: {reason}" if reason else "by hand"
        if not up:
            return self.decision("rollback", model, told, self.step, self.measures())
        last = self.step + 1 >= len(self.limits.steps)
        kind: Kind = "complete" if last else "promote"
        return self.decision(kind, model, told, self.step + 1, self.measures())

    def decision(
        self,
        kind: Kind,
        model: str,
        reason: str,
        step: int,
        measures: dict[str, Measure] | None = None,
    ) -> Decision:
        """Return a decision of this trial that leads to `step`."""
        after = 0.0 if kind in _ENDED else self._share(step)
        evidence = self.evidence(measures) if measures else {}
        return Decision(
            kind, model, reason, self.primary, self.canary, self.share, after, step, evidence
        )

    def evidence(self, measures: dict[str, Measure] | None = None) -> dict[str, Any]:
        """Return what is known, or was when `measures` were taken, as JSON holds it."""
        found = self.measures() if measures is None else measures
        return {name: self._evidence(name, measure) for name, measure in found.items()}

    def follow(self, decision: Decision) -> None:
        """Do what was decided: a new step counts anew."""
        self.state = _ENDED.get(decision.decision, "running")
        if decision.step != self.step:
            self.step = min(decision.step, len(self.limits.steps))
            self.errors, self.slow = Tally(), Tally()

    @property
    def _enough(self) -> bool:
        tally = self.errors if self.share else self.disagreement
        return tally.n >= self.limits.least

    def _share(self, step: int) -> float:
        return self.limits.steps[step] if step < len(self.limits.steps) else 1.0

    def _evidence(self, name: str, measure: Measure) -> dict[str, Any]:
        told = {
            "hits": measure.tally.hits,
            "n": measure.tally.n,
            **measure.interval()._asdict(),
            "limit": measure.limit,
            "side": measure.side,
            "confidence": 1 - self.limits.each,
        }
        if name == "errors":
            told["primary"] = {"hits": self.base.hits, "n": self.base.n}
        if name == "p99":
            told["seconds"] = self.limits.p99_s
        return told


def _measure(tally: Tally, limit: float, alpha: float) -> Measure:
    interval = tally.interval(alpha)
    return Measure(tally, limit, interval.side(limit), lambda: interval)


_MEANINGS = {
    "disagreement": "share of answers that differ",
    "errors": "failures above the primary's",
    "p99": "share of requests slower than the p99 allowed",
}


def _worded(name: str, measure: Measure) -> str:
    _, low, high = measure.interval()
    return f"{_MEANINGS[name]}: {low:.2%} to {high:.2%}, limit {measure.limit:.2%}"
