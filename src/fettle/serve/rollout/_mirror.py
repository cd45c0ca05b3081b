"""Asking another model what was answered already: a sample, on a thread of its own, within a cap.

Nothing of it lies in a request's way: what was answered is put into a queue that is bounded in
number and in bytes, and what doesn't fit is dropped and counted. The thread has the lowest priority
that the system gives, and rests after each run so long that it takes no more than its share of a
core. One that hangs stops comparing, and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from fettle.core.arrays import Arrays
from fettle.monitor.answered import Answered, nbytes
from fettle.serve._packing import gather, rows_of, scatter
from fettle.serve.model import Model
from fettle.serve.rollout._place import place_of

HANGS_S = 30.0
_MOST = 64  # requests
_MOST_BYTES = 64 << 20  # of their arrays
_NICEST = 19


class Mirrored(NamedTuple):
    """What came of asking the other model."""

    seen: Answered
    model: Model
    outputs: Arrays | None
    error: Exception | None
    compute_s: float


@dataclass(frozen=True)
class MirrorLimits:
    """What a mirror may take.

    Attributes:
        sample: share of the answered requests that are mirrored, by their id.
        busy: share of one core's time.
        most, most_bytes: requests, and bytes of their arrays, that wait.
    """

    sample: float = 0.1
    busy: float = 0.25
    most: int = _MOST
    most_bytes: int = _MOST_BYTES


class Mirror:
    """Answers a sample of requests again.

    Args:
        other: says which model answers a request again; None for none.
        took: is told what came of it, on the mirror's thread.
        limits: what it may take.
        salt: another one takes another sample.

    Attributes:
        taken: requests that were put into the queue.
        dropped: requests of the sample that weren't, for it was full.
        done: requests that were answered again, or failed.
        failed: those of them whose model, or whose comparison, failed.
    """

    def __init__(
        self,
        other: Callable[[Answered], Model | None],
        took: Callable[[Mirrored], None],
        limits: MirrorLimits,
        salt: str = "mirror",
    ) -> None:
        self._other, self._took, self._limits, self._salt = other, took, limits, salt
        self._waiting: deque[Answered] = deque()
        self._bytes = 0
        self._some = threading.Condition()
        self._stop = threading.Event()
        self._since: float | None = None
        self.taken = self.dropped = self.done = self.failed = 0
        self._thread = threading.Thread(target=self._work, name="fettle-mirror", daemon=True)
        self._thread.start()

    def tell(self, seen: Answered) -> None:
        """Take an answered request if it is one of the sample; returns at once."""
        if seen.outputs is None or place_of(seen.id, self._salt) >= self._limits.sample:
            return
        size = nbytes(seen.inputs, seen.outputs)
        with self._some:
            full = len(self._waiting) >= self._limits.most
            if full or self._bytes + size > self._limits.most_bytes or self._stop.is_set():
                self.dropped += 1
                return
            self._waiting.append(seen)
            self._bytes += size
            self.taken += 1
            self._some.notify()

    @property
    def hangs(self) -> bool:
        """Whether one run takes so long that nobody expects its end."""
        since = self._since
        return since is not None and time.monotonic() - since > HANGS_S

    def close(self, seconds: float = 5.0) -> None:
        """Forget what waits, and wait at most so long for a run that was begun."""
        self._stop.set()
        with self._some:
            self._waiting.clear()
            self._some.notify()
        self._thread.join(seconds)

    def _work(self) -> None:
        with contextlib.suppress(AttributeError, OSError):  # not every system has it
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICEST)
        while (seen := self._next()) is not None:
            start = self._since = time.monotonic()
            try:
                self._answer(seen)
            except Exception:  # whoever is told must not end the thread
                self.failed += 1
            self._since = None
            self.done += 1
            spent = time.monotonic() - start
            self._stop.wait(spent * (1 - self._limits.busy) / self._limits.busy)

    def _next(self) -> Answered | None:
        with self._some:
            while not self._waiting and not self._stop.is_set():
                self._some.wait()
            if self._stop.is_set():
                return None
            seen = self._waiting.popleft()
            self._bytes -= nbytes(seen.inputs, seen.outputs)
            return seen

    def _answer(self, seen: Answered) -> None:
        model = self._other(seen)
        if model is None:
            return
        start = time.monotonic()
        outputs, error = None, None
        try:
            outputs = run_alone(model, seen.inputs)
        except Exception as raised:  # an engine's
            self.failed += 1
            error = raised
        self._took(Mirrored(seen, model, outputs, error, time.monotonic() - start))


def run_alone(model: Model, inputs: Arrays) -> Arrays:
    """Return a model's outputs for one request, at a batch size that was proven where one fits."""
    count, sizes = rows_of(inputs), model.warm.sizes
    if not sizes.proven or count > sizes.largest:
        return model.run(inputs)
    size = sizes.padded(count)
    return scatter(model.run(gather([inputs], size)), [count], size)[0]
