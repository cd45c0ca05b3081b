"""A canary: another bundle takes over step by step, and is rolled back where it fails.

At each step it answers a growing share of the callers, always the same ones. Three bounds are kept,
each valid at every moment, so that they may be looked at several times a second: how often it
differs from the primary (a sample of all requests is answered by both), how much more often its
requests fail, and whether more than 1 % of them take longer than the p99 allowed. One bound that is
past its limit for certain rolls back at once; all of them within it for certain promote. While
neither is known, the step goes on. After the last step the canary answers all and is watched still.

The chance that any decision of a trial goes against the truth is at most `alpha`, shared out over
measures and steps. A bundle that is replaced starts a new trial; a server that starts again goes on
at the step where the last one stopped, with new counts.
"""

from __future__ import annotations

import itertools
import threading
from asyncio import CancelledError
from dataclasses import replace
from typing import Any

from fettle.core.arrays import Arrays
from fettle.monitor.answered import Answered
from fettle.monitor.metrics import Family
from fettle.monitor.prediction import Prediction
from fettle.serve.errors import Conflict, Refused
from fettle.serve.model import Model
from fettle.serve.protocol.request import InferRequest
from fettle.serve.repository import Served
from fettle.serve.rollout._agreement import compared
from fettle.serve.rollout._fitting import misfit
from fettle.serve.rollout._mirror import Mirror, Mirrored, MirrorLimits
from fettle.serve.rollout._rows import shadow_row, told
from fettle.serve.rollout._trial import Limits, Trial
from fettle.serve.rollout.decisions import Decision, Decisions, Kind
from fettle.serve.rollout.shadow import Record
from fettle.serve.rollout.split import PRIMARY, Find, Split
from fettle.serve.seams import Chosen

CANARY = "canary"
_EVERY_S = 0.25
_NOTED_EVERY = 20  # looks
_AGAIN = "it was rolled back before (another file of decisions tries it again): "


class Canary:
    """Routes a model's callers, observes how it went, and decides.

    Args:
        split: between the primary and the canary; its share is set here.
        finds: the primary's and the canary's.
        limits: what the canary is held to.
        mirroring: what comparing may take.
        decisions: where decisions are kept.
        tolerance: as `compare`.
        record: keeps answers that were given for comparison; the log's `tell`.
    """

    def __init__(
        self,
        split: Split,
        finds: tuple[Find, Find],
        limits: Limits,
        mirroring: MirrorLimits,
        decisions: Decisions,
        tolerance: float = 0.05,
        record: Record | None = None,
    ) -> None:
        self.name, self._split, self._finds = split.name, split, finds
        self._limits, self.decisions = limits, decisions
        self._tolerance, self._record = tolerance, record
        self._lock = threading.Lock()
        self._deciding = threading.Lock()
        self._trial: Trial | None = None
        self._evidence: dict[str, Any] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="fettle-canary", daemon=True)
        self.failed = 0
        self.mirror = Mirror(self._other, self._took, mirroring)
        split.share = 0.0

    @property
    def dropped(self) -> int:
        """Requests of the sample that it was too slow to compare."""
        return self.mirror.dropped

    def choose(self, name: str, version: str | None, key: str, request: InferRequest) -> Chosen:
        """Return what answers; raises as `Route.choose`."""
        chosen = self._split.choose(name, version, key, request)
        if chosen.part != CANARY:
            return chosen
        trial = self._trial
        if trial is None or chosen.served.model.sha != trial.canary:  # one that isn't on trial yet
            return Chosen(self._finds[0](name, version), PRIMARY)
        return chosen

    def tell(self, seen: Answered) -> None:
        """Count what a service saw; returns at once."""
        trial = self._trial
        if trial is None or seen.model != self.name or seen.route not in (PRIMARY, CANARY):
            return
        if seen.sha not in (trial.primary, trial.canary) or trial.state != "running":
            return
        if not isinstance(seen.error, CancelledError):  # who hangs up says nothing of the answer
            with self._lock:
                trial.answered(seen.route == CANARY, seen.error is not None, seen.total_s)
        if self._limits.disagreement is not None:
            self.mirror.tell(seen)

    def seen(self, prediction: Prediction, inputs: Arrays, outputs: Arrays | None) -> None:
        """Take one prediction."""
        self.tell(told(prediction, inputs, outputs))

    def start(self) -> None:
        """Begin a trial, and decide from now on; both models are ready."""
        self.tick()
        self._thread.start()

    def close(self, seconds: float = 5.0) -> None:
        """Decide and compare nothing more; who answers stays as it is."""
        self._stop.set()
        self.mirror.close(seconds)
        if self._thread.is_alive():
            self._thread.join(seconds)

    def tick(self) -> Decision | None:
        """Look at the evidence once; return what was decided."""
        with self._deciding:
            return self._look()

    def promote(self, reason: str = "") -> Decision:
        """Take it to its next step, whatever the evidence.

        Raises:
            Conflict: no trial runs, or it answers all already.
        """
        return self._by_hand(True, reason)

    def rollback(self, reason: str = "") -> Decision:
        """Let the primary answer all, whatever the evidence.

        Raises:
            Conflict: no trial runs.
        """
        return self._by_hand(False, reason)

    def status(self) -> dict[str, Any]:
        """Return the share, the step, what is known, and the last decision."""
        with self._lock:
            trial = self._trial.copy() if self._trial else None
        mirror = self.mirror
        counted = {k: getattr(mirror, k) for k in ("taken", "dropped", "done", "failed", "hangs")}
        told: dict[str, Any] = {"model": self.name, "share": self._split.share, "mirror": counted}
        if trial is not None:
            last = self.decisions.last(self.name, trial.primary, trial.canary)
            told |= {
                "primary": trial.primary,
                "canary": trial.canary,
                "state": "complete" if trial.complete and trial.share else trial.state,
                "step": trial.step,
                "steps": list(trial.limits.steps),
                "evidence": trial.evidence(),
                "last": last and {**vars(last)},
            }
        return told

    def note(self) -> None:
        """Work out what metrics tell of the evidence."""
        self._evidence = self.status().get("evidence", {})

    def families(self) -> list[Family]:
        """Return its metrics; the bounds are some seconds old, for they take long to work out."""
        share = Family("fettle_canary_share", "gauge", "Share of callers that the canary answers")
        share.add(self._split.share, model=self.name)
        bounds = Family("fettle_canary_bound", "gauge", "What is known of a measure; its limit")
        for name, row in self._evidence.items():
            for bound in ("estimate", "low", "high", "limit"):
                if row[bound] is not None:
                    bounds.add(row[bound], model=self.name, measure=name, bound=bound)
        lost = Family("fettle_decisions_lost_total", "counter", "Decisions the file doesn't hold")
        lost.add(self.decisions.lost, model=self.name)
        return [share, bounds, lost]

    def _work(self) -> None:
        for number in itertools.count():
            if self._stop.wait(_EVERY_S):
                return
            try:
                self.tick()
                if number % _NOTED_EVERY == 0:
                    self.note()
            except Exception:  # a thread that has ended would never roll back
                self.failed += 1

    def _look(self) -> Decision | None:
        try:
            primary, canary = (find(self.name, None) for find in self._finds)
        except Refused:  # one is loaded or was unloaded: what isn't ready isn't chosen
            return None
        trial = self._trial
        pair = (primary.model.sha, canary.model.sha)
        if trial is None or (trial.primary, trial.canary) != pair:
            return self._begin(primary, canary)
        with self._lock:
            now = trial.copy()
        decision = now.decide(self.name)
        return self._follow(trial, decision) if decision else None

    def _by_hand(self, up: bool, reason: str) -> Decision:
        with self._deciding:
            trial = self._trial
            if trial is None or trial.state != "running":
                state = "isn't ready" if trial is None else f"was {trial.state}"
                raise Conflict(
                    f"a canary on trial was expected, and that of `{self.name}` {state}: another"
                    " bundle in its folder, or a server with another file of decisions, tries anew"
                )
            if up and trial.complete:
                raise Conflict(f"the canary of `{self.name}` answers all callers already")
            with self._lock:
                now = trial.copy()
            return self._follow(trial, now.by_hand(up, self.name, reason))

    def _begin(self, primary: Served, canary: Served) -> Decision:
        """Begin a trial, where the last one of the same bundles stopped."""
        trial = Trial(primary.model.sha, canary.model.sha, self._limits)
        trouble = misfit(primary.model, canary.model)
        before = self.decisions.last(self.name, trial.primary, trial.canary)
        step = min(before.step, len(self._limits.steps)) if before else 0
        kind: Kind = "start" if self._trial is None else "restart"
        reason = "a new canary" if self._trial is None else "a bundle was replaced"
        if trouble:
            kind, reason, step = "refuse", trouble, 0
        elif before is not None and before.decision == "rollback":
            kind, reason = "rollback", _AGAIN + before.reason.removeprefix(_AGAIN)
        elif before is not None and before.decision != "refuse":
            kind, reason = "resume", f"goes on after {before.decision} at {before.time}"
        decision = replace(trial.decision(kind, self.name, reason, step), before=self._split.share)
        with self._lock:
            self._trial = trial
        return self._follow(trial, decision)

    def _follow(self, trial: Trial, decision: Decision) -> Decision:
        """Act first, and write it down after."""
        with self._lock:
            trial.follow(decision)
            self._split.share = trial.share
        return self.decisions.add(decision)

    def _other(self, seen: Answered) -> Model | None:
        """Return the one of the two that didn't answer."""
        trial = self._trial
        if trial is None or trial.state != "running":
            return None
        wanted = trial.canary if seen.sha == trial.primary else trial.primary
        try:
            model = self._finds[wanted == trial.canary](self.name, None).model
        except Refused:
            return None
        return model if model.sha == wanted else None

    def _took(self, mirrored: Mirrored) -> None:
        """Count whether both agree; a canary that fails where the primary doesn't, disagrees."""
        agreement = compared(mirrored.seen.outputs, mirrored.outputs, self._tolerance)
        if self._record is not None:
            self._record(shadow_row(mirrored, agreement))
        trial, seen = self._trial, mirrored.seen
        if trial is None or {seen.sha, mirrored.model.sha} != {trial.primary, trial.canary}:
            return
        if mirrored.outputs is None and mirrored.model.sha == trial.primary:
            return  # says nothing of the canary
        with self._lock:
            trial.disagreement.add(agreement.disagreement if agreement else 1.0)
