"""Several worker processes as one session: what one loses, another computes.

Each process has a keeper, a thread that waits for its end and starts another. A batch whose process
dies is given to the next that is free; one that takes several processes with it is given up, so
that a request which crashes the engine can't keep all of them down.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from fettle.core.arrays import Arrays, TensorSpec
from fettle.runtimes import Session
from fettle.serve.errors import NotReady
from fettle.serve.workers.remote import WorkerLost

_LOG = logging.getLogger("fettle.serve")
_ATTEMPTS = 3
_HEALTHY_S = 5.0  # one that lived so long is started again at once
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 30.0
_FAREWELL_S = 5.0


class Worker(Protocol):
    """A worker process, as `Remote` is."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def pid(self) -> int:
        """Which process it is."""

    def run(self, inputs: Arrays) -> Arrays:
        """Return the outputs, or raise WorkerLost."""

    def wait(self) -> int:
        """Wait until it has ended."""

    def kill(self) -> None:
        """End it."""

    def close(self) -> None:
        """Let it end."""


class Pool(Session):
    """Runs each batch in one of `count` worker processes; `callers` is their number.

    Args:
        start: starts a process and returns it when it is ready, and proven to be right.
        count: how many.
        patience_s: how long a batch waits while no process is up.
        cleanup: is called when all have ended.

    Raises:
        FettleError: the first of them can't be started.
    """

    def __init__(
        self,
        start: Callable[[], Worker],
        count: int,
        patience_s: float = 10.0,
        cleanup: Callable[[], None] = lambda: None,
    ) -> None:
        self.callers = count
        self.lost = 0
        self._start, self._patience_s, self._cleanup = start, patience_s, cleanup
        self._up: set[Worker] = set()
        self._idle: list[Worker] = []
        self._change = threading.Condition()
        self._closing = threading.Event()
        try:
            first = _all_of(start, count)
        except BaseException:
            cleanup()
            raise
        self.inputs, self.outputs = first[0].inputs, first[0].outputs
        for worker in first:
            self._join(worker)
        self._keepers = [
            threading.Thread(target=self._keep, args=(worker,), name="fettle-keeper", daemon=True)
            for worker in first
        ]
        for keeper in self._keepers:
            keeper.start()

    @property
    def pids(self) -> list[int]:
        """Which processes are up."""
        with self._change:
            return sorted(worker.pid for worker in self._up)

    def run(self, inputs: Arrays) -> Arrays:
        """Return the outputs by name; safe for `callers` threads.

        Raises:
            InputError, ModelError: as the session in a process does.
            WorkerLost: several processes were lost over these inputs.
            NotReady: no process came up in time, or the model is closed.
        """
        lost: WorkerLost | None = None
        for _ in range(_ATTEMPTS):
            worker = self._take()
            try:
                return worker.run(inputs)
            except WorkerLost as error:
                lost = error
                self._leave(worker)
            finally:
                self._give_back(worker)
        assert lost is not None
        raise lost

    def close(self) -> None:
        """Let all processes end with what they have begun; one that doesn't is killed."""
        with self._change:
            self._closing.set()
            idle, self._idle = self._idle, []
            self._change.notify_all()
        for worker in idle:
            worker.close()
        self._await_end(_FAREWELL_S)
        with self._change:
            left = list(self._up)
        for worker in left:
            worker.kill()
        self._await_end(_FAREWELL_S)
        self._cleanup()

    def _take(self) -> Worker:
        with self._change:
            self._change.wait_for(lambda: self._idle or self._closing.is_set(), self._patience_s)
            if self._closing.is_set() or not self._idle:
                raise NotReady("no worker process of this model is up; ask again")
            return self._idle.pop()

    def _give_back(self, worker: Worker) -> None:
        """Put a worker among the idle again, unless it has ended or is to end."""
        with self._change:
            stays = worker in self._up and not self._closing.is_set()
            if stays:
                self._idle.append(worker)
                self._change.notify()
        if not stays:
            worker.close()

    def _join(self, worker: Worker) -> None:
        with self._change:
            self._up.add(worker)
        self._give_back(worker)

    def _leave(self, worker: Worker) -> None:
        """Take a worker out; whoever holds it closes it."""
        with self._change:
            self._up.discard(worker)
            idle = worker in self._idle
            if idle:
                self._idle.remove(worker)
        if idle:
            worker.close()

    def _keep(self, worker: Worker | None) -> None:
        """See that there is a process, from one to the next, until the pool is closed."""
        pause = 0.0
        while worker is not None:
            began = time.monotonic()
            status = worker.wait()
            self._leave(worker)
            if self._closing.is_set():
                return
            self.lost += 1
            _LOG.warning("worker process %d ended with %d; another starts", worker.pid, status)
            healthy = time.monotonic() - began >= _HEALTHY_S
            pause = 0.0 if healthy else _longer(pause)
            worker = self._another(pause)

    def _another(self, pause: float) -> Worker | None:
        """Return a new process that is at work; None when the pool is closed."""
        while not self._closing.wait(pause):
            try:
                worker = self._start()
            except Exception as error:  # whatever ails the machine now may be over soon
                pause = _longer(pause)
                _LOG.warning("no worker process could be started (%s); again in %g s", error, pause)
                continue
            self._join(worker)
            return worker
        return None

    def _await_end(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        for keeper in self._keepers:
            keeper.join(max(0.0, until - time.monotonic()))


def _longer(pause: float) -> float:
    return min(_LONGEST_PAUSE_S, max(_FIRST_PAUSE_S, 2 * pause))


def _all_of(start: Callable[[], Worker], count: int) -> list[Worker]:
    """Return so many processes, started beside each other; all of them or none."""
    with ThreadPoolExecutor(count) as threads:
        begun = [threads.submit(start) for _ in range(count)]
    failed = [each.exception() for each in begun if each.exception() is not None]
    if failed:
        for each in begun:
            if each.exception() is None:
                each.result().close()
                each.result().wait()
        raise failed[0]  # type: ignore[misc]
    return [each.result() for each in begun]
