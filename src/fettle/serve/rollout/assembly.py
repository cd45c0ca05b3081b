"""A rollout as a server runs it: its bundles loaded beside the others, its route and observers.

```python
rollout = rollout_of(RolloutSettings(shadow="original/"), settings, repository, log.tell)
service = Service(repository, settings, rollout.route, [*others, *rollout.observers])
await repository.start()
await rollout.start()
```
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from fettle.core.errors import InputError
from fettle.monitor.metrics import Family
from fettle.serve._places import FIRST, given
from fettle.serve.repository import Repository
from fettle.serve.rollout._fitting import misfit
from fettle.serve.rollout._mirror import MirrorLimits
from fettle.serve.rollout._trial import Limits
from fettle.serve.rollout.canary import CANARY, Canary
from fettle.serve.rollout.decisions import Decisions
from fettle.serve.rollout.settings import RolloutSettings
from fettle.serve.rollout.shadow import Record, Shadow
from fettle.serve.rollout.split import PRIMARY, Split
from fettle.serve.seams import Observer, Route
from fettle.serve.settings import Settings


class Rollout:
    """What rides along with a repository.

    Attributes:
        route: who answers; None where that doesn't change.
        observers: are to be told of what is answered.
    """

    def __init__(self, repository: Repository, serving: Settings) -> None:
        self.route: Route | None = None
        self.observers: list[Observer] = []
        self._repository, self.serving = repository, serving
        self._arms: list[tuple[str, Repository]] = []
        self._parts: dict[str, Shadow | Canary] = {}

    async def start(self) -> None:
        """Load what was given, once the repository is ready; from then on the rollout runs.

        Raises:
            InputError: a bundle takes or gives something else than the one it is compared with.
            FettleError: it can't be loaded.
        """
        for name, arm in self._arms:
            await arm.start()
            trouble = misfit(self._repository.find(name).model, arm.find(name).model)
            if trouble:
                raise InputError(f"{arm.find(name).model.path} can't join `{name}`: {trouble}")
        for part in self._parts.values():
            if isinstance(part, Canary):
                await asyncio.to_thread(part.start)

    async def reload(self) -> None:
        """Load anew what has changed since it was loaded."""
        for _, arm in self._arms:
            await arm.reload()

    async def watch(self, every_s: float) -> None:
        """Look at the folders again and again, and load what changed."""
        await asyncio.gather(*(arm.watch(every_s) for _, arm in self._arms))

    async def close(self) -> None:
        """Answer what was let in, and close; the service has closed its observers by then."""
        for _, arm in self._arms:
            await arm.close()

    def status(self) -> dict[str, Any]:
        """Return how the shadow and the canary are doing, by these names."""
        return {name: part.status() for name, part in self._parts.items()}

    def families(self) -> list[Family]:
        """Return the metrics of both."""
        return [family for part in self._parts.values() for family in part.families()]

    def arm(self, text: str, serving: Settings | None = None) -> tuple[str, Repository]:
        """Return the model that `[NAME=]BUNDLE` is for, and what loads that bundle.

        Raises:
            InputError: no such model is served, or several are and none is named.
        """
        name, version, path = given(text)
        known = sorted({row["name"] for row in self._repository.index()})
        if (name or len(known) != 1) and name not in known:
            raise InputError(
                f"[NAME=]BUNDLE expects one of the models {', '.join(known)}, got {text!r}"
            )
        arm = Repository(serving or self.serving)
        arm.add(name or known[0], version or FIRST, path)
        self._arms.append((name or known[0], arm))
        return name or known[0], arm

    def add(self, kind: str, part: Shadow | Canary) -> None:
        """Let a shadow or a canary ride along."""
        self._parts[kind] = part
        self.observers.append(part)


def rollout_of(
    settings: RolloutSettings,
    serving: Settings,
    repository: Repository,
    record: Record | None = None,
) -> Rollout:
    """Return the rollout that is asked for; one that changes nothing where none is.

    Args:
        settings: what rides along.
        serving: how a server runs its models.
        repository: its models, which have been added.
        record: keeps answers that were given for comparison; the log's `tell`.

    Raises:
        InputError: a bundle is for no model that is served.
        StorageError, DataError: the file of decisions can't be read.
    """
    rollout = Rollout(repository, serving)
    if settings.shadow:
        rollout.add("shadow", _shadow(rollout, settings, record))
    if settings.ab:
        name, arm = rollout.arm(settings.ab)
        rollout.route = Split(name, repository.find, arm.find, settings.split, settings.salt)
    if settings.canary:
        canary = _canary(rollout, settings, repository, record)
        rollout.route = canary
        rollout.add("canary", canary)
    return rollout


def _shadow(rollout: Rollout, settings: RolloutSettings, record: Record | None) -> Shadow:
    # its thread has the lowest priority, which threads of the engine's own would not have
    serving = replace(rollout.serving, threads=1, isolate=min(rollout.serving.isolate, 1))
    name, arm = rollout.arm(settings.shadow, serving)
    limits = _mirroring(settings)
    return Shadow(name, arm.find, limits, settings.tolerance, settings.alpha, record)


def _canary(
    rollout: Rollout, settings: RolloutSettings, repository: Repository, record: Record | None
) -> Canary:
    name, arm = rollout.arm(settings.canary)
    finds = (repository.find, arm.find)
    return Canary(
        Split(name, *finds, 0.0, settings.salt, (PRIMARY, CANARY)),
        finds,
        _limits(settings),
        _mirroring(settings),
        Decisions(settings.decisions),
        settings.tolerance,
        record,
    )


def _mirroring(settings: RolloutSettings) -> MirrorLimits:
    return MirrorLimits(settings.mirror_sample, settings.mirror_busy)


def _limits(settings: RolloutSettings) -> Limits:
    p99 = settings.canary_p99_ms
    return Limits(
        steps=settings.steps,
        least=settings.canary_least,
        disagreement=settings.canary_disagreement if settings.mirror_sample else None,
        errors=settings.canary_errors,
        p99_s=None if p99 is None else p99 / 1000,
        alpha=settings.alpha,
    )
