"""From a bundle to worker processes that serve it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from fettle.core.bundle import Bundle
from fettle.core.machine import usable_threads
from fettle.runtimes import Session
from fettle.serve._engine import runtime_of, sha_of
from fettle.serve.workers.copies import Copy
from fettle.serve.workers.pool import Pool
from fettle.serve.workers.remote import Job, Remote

Check = Callable[[Session, Bundle], object]
_SHORTEST_S = 10.0


class Isolation(Protocol):
    """What of the settings matters to worker processes."""

    @property
    def isolate(self) -> int:
        """How many there are."""

    @property
    def threads(self) -> int:
        """Threads of each engine; 0 shares out all there are."""

    @property
    def deadline_seconds(self) -> float:
        """How long a request may take."""


def isolated(bundle: Bundle, settings: Isolation, check: Check) -> Pool:
    """Return a session whose engine runs in worker processes.

    They read a copy of the bundle's folder, so that one that is started again serves what was
    proven, whatever has become of the folder meanwhile.

    Args:
        bundle: opened, so that its hashes are verified.
        settings: how many, and how they run.
        check: is called with each process's session and the bundle in its copy before it gets a
            request; raises if it is wrong.

    Raises:
        FettleError: a process can't be started, or the check doesn't hold.
        StorageError: there is no room for the copy.
    """
    runtime = runtime_of(bundle)
    kept = Copy(bundle)
    copy = replace(bundle, path=kept.path)
    # half of the deadline: who waits for a process that hangs may still be answered by another
    longest = max(_SHORTEST_S, settings.deadline_seconds / 2)
    share = runtime.threads or max(1, usable_threads() // settings.isolate)
    job = Job(copy.path, sha_of(bundle.manifest), settings.threads or share, longest)
    return Pool(
        functools.partial(_checked, job, lambda remote: check(remote, copy)),
        settings.isolate,
        longest,
        kept.close,
    )


def _checked(job: Job, check: Callable[[Session], object]) -> Remote:
    remote = Remote(job)
    try:
        check(remote)
    except BaseException:
        remote.close()
        remote.wait()
        raise
    return remote
