"""One artifact on one engine, opened to be timed, or the reason why the engine refuses it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from fettle import measure
from fettle.core.errors import FettleError, MissingError
from fettle.core.machine import usable_threads
from fettle.runtimes import Runtime, Session
from fettle.search._smoke import fault_of
from fettle.search._trial import precision_of
from fettle.search.subject import Subject

MISSING, MODEL = "missing", "model"


@dataclass(frozen=True)
class Where:
    """What the artifacts of one group share: they are timed against each other."""

    batch: int
    threads: int
    concurrency: int = 1

    def to_json(self) -> dict[str, int]:
        """Return the JSON form; 0 threads are all there are."""
        threads = self.threads or usable_threads()
        return {"batch": self.batch, "threads": threads, "concurrency": self.concurrency}


@dataclass
class Entry:
    """An artifact on an engine; `session` is None once it is refused or closed."""

    subject: Subject
    runtime: Runtime
    where: Where
    session: Session | None = None
    lowering: tuple[str, ...] = ()
    build_seconds: float = 0.0
    row: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """A name that no other entry of the group has."""
        return f"{self.subject.name} @ {self.row['runtime']}"

    @property
    def artifact(self) -> measure.Artifact:
        """What a process of its own is given to measure."""
        subject, batch = self.subject, self.where.batch
        return measure.Artifact(
            subject.path, self.runtime, self.lowering, batch=batch, module=subject.source
        )

    def build(self) -> Session:
        """Return a session of its own."""
        model = self.subject.onnx if self.runtime.takes == "onnx" else self.subject.module
        assert model is not None
        return self.runtime.build(model, self.lowering)

    def runner(self, session: Session | None = None) -> Callable[[], object]:
        """Return what is timed: one request of the group's batch."""
        held = session or self.session
        assert held is not None
        return partial(measure.run_batch, held, self.subject.batch(self.where.batch))

    def runner_of(self, batch: int) -> Callable[[], object]:
        """Return one request of another batch, on the session that is open."""
        assert self.session is not None
        return partial(measure.run_batch, self.session, self.subject.batch(batch))

    def close(self) -> None:
        """Give back what the session holds."""
        if self.session is not None:
            self.session.close()
        self.session = None


def open_entry(subject: Subject, runtime: Runtime, where: Where) -> Entry:
    """Build the session and run it once.

    What an engine raises refuses its row, whatever it is: the other rows go on.
    """
    entry = Entry(subject, runtime, where)
    refused, kind = runtime.supports(), MISSING
    try:
        if refused is None:
            refused, kind = _start(entry), MODEL
    except MissingError as error:
        refused, kind = str(error), MISSING
    except FettleError as error:
        refused, kind = str(error), MODEL
    if refused is not None:
        entry.close()
    entry.row = _blank_row(entry, refused, kind)
    return entry


def _start(entry: Entry) -> str | None:
    subject, runtime = entry.subject, entry.runtime
    inputs = subject.batch(entry.where.batch)
    entry.lowering = subject.lowering(runtime) if runtime.takes == "onnx" else ()
    started = time.perf_counter()
    entry.session = entry.build()
    entry.build_seconds = time.perf_counter() - started
    return fault_of(entry.session, inputs)


def _blank_row(entry: Entry, refused: str | None, kind: str) -> dict[str, Any]:
    return {
        "subject": entry.subject.name,
        "runtime": str(entry.runtime.but(threads=0)),
        "precision": _precision(entry),
        **entry.where.to_json(),
        "fixed_batch": _fixed_batch(entry),
        "calls": _calls(entry),
        "latency_ms": None,
        "throughput": None,
        "size_bytes": entry.subject.size_bytes(),
        "peak_memory_bytes": None,
        "resident_memory_bytes": None,
        "cold_start_ms": None,
        "first_inference_ms": None,
        "no_memory": None,
        "energy_joules": None,
        "bound_ms": None,
        "bound_fraction": None,
        "lowering": list(entry.lowering),
        "refused": refused,
        "refused_kind": kind if refused is not None else None,
    }


def _fixed_batch(entry: Entry) -> int | None:
    return None if entry.session is None else measure.fixed_batch(entry.session)


def _calls(entry: Entry) -> int:
    """Return how many calls of the engine answer one request of the batch that is timed."""
    fixed = _fixed_batch(entry)
    return 1 if fixed is None else math.ceil(entry.where.batch / fixed)


def _precision(entry: Entry) -> str:
    if entry.runtime.takes != "onnx" or entry.subject.no_onnx is not None:
        return entry.runtime.precision
    return precision_of(entry.subject.path, entry.runtime)
