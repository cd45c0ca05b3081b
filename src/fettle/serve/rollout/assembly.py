"""A rollout as a server runs it: its bundles loaded beside the others, its route and observers.

```python
rollout = rollout_of(RolloutSettings(shadow="original/"), settings, repository, log.tell)
service = Service(repository, settings, rollout.route, [*others, *rollout.observers], rollout.ready)
await repository.start()
await rollout.start()
```
"""

from __future__ import annotations

from dataclasses import replace

from fettle.serve.repository import Repository
from fettle.serve.rollout._mirror import MirrorLimits
from fettle.serve.rollout._trial import Limits
from fettle.serve.rollout.canary import CANARY, Canary
from fettle.serve.rollout.decisions import Decisions
from fettle.serve.rollout.riding import Rollout
from fettle.serve.rollout.settings import RolloutSettings
from fettle.serve.rollout.shadow import Record, Shadow
from fettle.serve.rollout.split import PRIMARY, Split
from fettle.serve.settings import Settings


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
        BundleError: there is none.
        StorageError, DataError: the file of decisions can't be read.
    """
    rollout = Rollout(repository, serving, Decisions(settings.decisions))
    if settings.ab:
        arm = rollout.arm("ab", settings.ab)
        split = Split(arm.name, repository.find, arm.repository.find, settings.split, settings.salt)
        rollout.route = split
        rollout.add("ab", split)
    if settings.canary:
        canary = _canary(rollout, settings, repository, record)
        rollout.route = canary
        rollout.add("canary", canary, canary)
    if settings.shadow:
        shadow = _shadow(rollout, settings, record)
        rollout.add("shadow", shadow, shadow)
    return rollout


def _shadow(rollout: Rollout, settings: RolloutSettings, record: Record | None) -> Shadow:
    # its thread has the lowest priority, which threads of the engine's own would not have
    serving = replace(rollout.serving, threads=1, isolate=min(rollout.serving.isolate, 1))
    arm = rollout.arm("shadow", settings.shadow, serving)
    limits, find = _comparing(settings), arm.repository.find
    return Shadow(arm.name, find, limits, settings.tolerance, settings.alpha, record)


def _canary(
    rollout: Rollout, settings: RolloutSettings, repository: Repository, record: Record | None
) -> Canary:
    arm = rollout.arm("canary", settings.canary)
    finds = (repository.find, arm.repository.find)
    return Canary(
        Split(arm.name, *finds, 0.0, settings.salt, (PRIMARY, CANARY)),
        finds,
        _limits(settings),
        _comparing(settings),
        rollout.decisions,
        settings.tolerance,
        record,
    )


def _comparing(settings: RolloutSettings) -> MirrorLimits:
    return MirrorLimits(settings.shadow_sample, settings.shadow_busy)


def _limits(settings: RolloutSettings) -> Limits:
    p99 = settings.canary_p99_ms
    return Limits(
        steps=settings.steps,
        least=settings.canary_least,
        disagreement=settings.canary_disagreement if settings.shadow_sample else None,
        errors=settings.canary_errors,
        p99_s=None if p99 is None else p99 / 1000,
        alpha=settings.alpha,
    )
