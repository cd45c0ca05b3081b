"""What rides along with a repository: further bundles, who is asked of them, and who compares."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from fettle.core.bundle import is_bundle
from fettle.core.errors import BundleError, InputError
from fettle.monitor.metrics import Family
from fettle.serve._places import given
from fettle.serve.errors import Conflict, Refused
from fettle.serve.repository import Repository
from fettle.serve.rollout._fitting import misfit
from fettle.serve.rollout.canary import Canary
from fettle.serve.rollout.decisions import Decision, Decisions
from fettle.serve.seams import Observer, Route
from fettle.serve.settings import Settings


class Part(Protocol):
    """A shadow, an A/B split or a canary."""

    def status(self) -> dict[str, Any]:
        """Return how it is doing."""

    def families(self) -> list[Family]:
        """Return its metrics."""


class Arm(NamedTuple):
    """What loads one bundle beside a model, and that model's name."""

    name: str
    repository: Repository

    def status(self) -> dict[str, Any]:
        """Return which bundle it is, and whether it is ready."""
        (row,) = self.repository.index()
        bundle = ""
        with contextlib.suppress(Refused):
            bundle = self.repository.find(self.name).model.sha
        return {"bundle": bundle, "ready": bool(bundle), "trouble": row["reason"]}


class Rollout:
    """What rides along with a repository.

    Attributes:
        route: who answers; None where that doesn't change.
        observers: are to be told of what is answered.
        arms: the further bundles, by what they are for: "shadow", "ab", "canary".
        decisions: what a canary's trial led to.
    """

    def __init__(
        self, repository: Repository, serving: Settings, decisions: Decisions | None = None
    ) -> None:
        self.route: Route | None = None
        self.observers: list[Observer] = []
        self.arms: dict[str, Arm] = {}
        self.decisions = decisions or Decisions()
        self._repository, self.serving = repository, serving
        self._parts: dict[str, Part] = {}
        self._started = False

    def arm(self, kind: str, text: str, serving: Settings | None = None) -> Arm:
        """Return what loads the bundle that `[NAME=]BUNDLE` names.

        What may answer callers counts with the model that it stands in for.

        Raises:
            InputError: no such model is served, or several are and none is named.
            BundleError: no bundle is there.
        """
        name, version, path = given(text)
        known = sorted({row["name"] for row in self._repository.index()})
        if (name or len(known) != 1) and name not in known:
            raise InputError(
                f"`--{kind}` expects [NAME=]BUNDLE with one of the models {', '.join(known)}, got"
                f" {text!r}"
            )
        if not is_bundle(path):
            raise BundleError(f"`--{kind}` expects a bundle, and there is none at {path}")
        name = name or known[0]
        counted = {v: s for (n, v), s in self._repository.statistics().items() if n == name}
        highest = max(counted, key=int)
        arm = Arm(name, Repository(serving or self.serving))
        answers = kind != "shadow"
        arm.repository.add(name, version or highest, path, counted[highest] if answers else None)
        self.arms[kind] = arm
        return arm

    def add(self, kind: str, part: Part, observer: Observer | None = None) -> None:
        """Let a part ride along."""
        self._parts[kind] = part
        if observer is not None:
            self.observers.append(observer)

    async def start(self) -> None:
        """Load what was given, once the repository is ready; from then on the rollout runs.

        Raises:
            InputError: a bundle takes or gives something else than the one it is compared with.
            FettleError: it can't be loaded.
        """
        for kind, arm in self.arms.items():
            await arm.repository.start()
            joining = arm.repository.find(arm.name).model
            trouble = misfit(self._repository.find(arm.name).model, joining)
            if trouble:
                raise InputError(
                    f"`--{kind}` expects what takes and gives the same as `{arm.name}`, and"
                    f" {joining.path} doesn't: {trouble}"
                )
        for part in self._parts.values():
            if isinstance(part, Canary):
                await asyncio.to_thread(part.start)
        self._started = True

    def ready(self) -> bool:
        """Say whether it runs, or there is nothing to run."""
        return self._started or not self.arms

    async def reload(self) -> None:
        """Load anew what has changed since it was loaded."""
        for arm in self.arms.values():
            await arm.repository.reload()

    async def watch(self, every_s: float) -> None:
        """Look at the folders again and again, and load what changed."""
        await asyncio.gather(*(arm.repository.watch(every_s) for arm in self.arms.values()))

    async def close(self) -> None:
        """Answer what was let in, and close; the service has closed its observers by then."""
        for arm in self.arms.values():
            await arm.repository.close()

    def status(self) -> dict[str, Any]:
        """Return how each part is doing, by its name, and what was decided, oldest first."""
        told: dict[str, Any] = {
            kind: {**self.arms[kind].status(), **part.status()}
            for kind, part in self._parts.items()
        }
        if "canary" in told:
            told["decisions"] = [vars(decision) for decision in self.decisions.recent]
        return told

    def families(self) -> list[Family]:
        """Return the metrics of all parts."""
        return [family for part in self._parts.values() for family in part.families()]

    def workers_lost(self) -> Mapping[str, dict[tuple[str, str], int]]:
        """Return how many worker processes each part's bundle has lost, where it has any."""
        return {kind: arm.repository.workers_lost() for kind, arm in self.arms.items()}

    def promote(self, reason: str) -> Decision:
        """Take the canary to its next step; raises Conflict where it has none."""
        return self._canary().promote(reason)

    def rollback(self, reason: str) -> Decision:
        """Take the canary back; raises Conflict where there is nothing to take back."""
        return self._canary().rollback(reason)

    def _canary(self) -> Canary:
        part = self._parts.get("canary")
        if not isinstance(part, Canary):
            raise Conflict("no canary rides along: start the server with --canary BUNDLE")
        return part
