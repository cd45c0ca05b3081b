"""`fettle bench`: any number of artifacts on any number of runtimes, in one interleaved run."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from fettle import measure
from fettle.core.errors import FettleError, InputError
from fettle.core.machine import usable_threads
from fettle.core.progress import Reporter
from fettle.measure.memory import peak_memory
from fettle.runtimes import Runtime, Session
from fettle.search._result import machine_json
from fettle.search._smoke import fault_of
from fettle.search._trial import precision_of
from fettle.search.subject import Subject


@dataclass(frozen=True)
class BenchSetting:
    """Which runtimes (`all`, or recipes' names such as `openvino(precision='bf16')`), batch
    sizes and thread counts (0: all there are), and for how many seconds each group is timed.
    """

    runtimes: tuple[str, ...] = ("all",)
    batches: tuple[int, ...] = (1,)
    threads: tuple[int, ...] = (0,)
    seconds: float = 10.0
    memory: bool = True


@dataclass
class _Entry:
    subject: Subject
    runtime: Runtime
    session: Session | None = None
    lowering: tuple[str, ...] = ()
    row: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return f"{self.subject.name} @ {self.runtime}"


def bench(subjects: Sequence[Subject], setting: BenchSetting, progress: Reporter) -> dict[str, Any]:
    """Return the result of the contract: `rows`, `ratios`, `noise` and `machine`.

    Artifacts of the same batch and threads are timed against each other, interleaved; a ratio
    `a` over `b` above 1 says that `b` is that many times faster.

    Raises:
        InputError: no subject, or the same twice.
        UnknownName: no such runtime.
    """
    names = [subject.name for subject in subjects]
    if not names or len(set(names)) < len(names):
        raise InputError(f"`bench` expects one artifact or several different ones, got {names}")
    rows: list[dict[str, Any]] = []
    ratios: list[dict[str, Any]] = []
    noises = []
    for threads, batch in itertools.product(setting.threads, setting.batches):
        entries = [_open(s, r, batch) for s in subjects for r in _runtimes(setting, s, threads)]
        running = [entry for entry in entries if entry.session is not None]
        if running:
            progress.say(f"time batch {batch}, {threads or usable_threads()} threads")
            noises.append(_time(running, batch, setting, progress))
            ratios += noises[-1].pop("ratios")
        rows += [entry.row for entry in entries]
        _close(running)
    noise = max(noises, key=lambda n: n["high"] - n["low"]) if noises else None
    return {"rows": rows, "ratios": ratios, "noise": noise, "machine": machine_json()}


def _runtimes(setting: BenchSetting, subject: Subject, threads: int) -> list[Runtime]:
    names = setting.runtimes
    if names == ("all",):
        names = ("onnxruntime", "openvino")
        if not subject.quantized:
            names += ("openvino(precision='bf16')",)
        if subject.module is not None:
            names += ("pytorch", "pytorch(mode='compiled')")
    runtimes = [_runtime(name).but(threads=threads) for name in names]
    return [r for r in runtimes if r.takes == "onnx" or subject.module is not None]


def _runtime(text: str) -> Runtime:
    from fettle.core.recipe import Recipe

    runtime = Recipe.parse(f"@ {text}").runtime
    assert isinstance(runtime, Runtime)
    return runtime


def _open(subject: Subject, runtime: Runtime, batch: int) -> _Entry:
    entry = _Entry(subject, runtime)
    refused = runtime.supports()
    try:
        if refused is None:
            entry.lowering = subject.lowering(runtime) if runtime.takes == "onnx" else ()
            model = subject.path if runtime.takes == "onnx" else subject.module
            assert model is not None
            session = runtime.build(model, entry.lowering)
            refused = fault_of(session, subject.batch(batch))
            entry.session = session if refused is None else None
    except FettleError as error:
        refused = str(error)
    entry.row = _blank_row(entry, batch, refused)
    return entry


def _blank_row(entry: _Entry, batch: int, refused: str | None) -> dict[str, Any]:
    path = entry.subject.path
    return {
        "subject": entry.subject.name,
        "runtime": str(entry.runtime.but(threads=0)),
        "precision": _precision(entry),
        "batch": batch,
        "threads": entry.runtime.threads or usable_threads(),
        "latency_ms": None,
        "throughput": None,
        "size_bytes": measure.onnx_bytes(path),
        "peak_memory_bytes": None,
        "lowering": list(entry.lowering),
        "refused": refused,
    }


def _precision(entry: _Entry) -> str:
    if entry.runtime.takes != "onnx":
        return entry.runtime.precision
    return precision_of(entry.subject.path, entry.runtime)


def _time(
    entries: Sequence[_Entry], batch: int, setting: BenchSetting, progress: Reporter
) -> dict[str, Any]:
    subjects = [_timed(entry, batch) for entry in entries]
    twin = measure.twin_of(subjects[0])
    plan = measure.Plan.for_budget(setting.seconds)
    samples = measure.time_interleaved([*subjects, twin], plan, progress)
    for entry in entries:
        entry.row["latency_ms"] = measure.summary(samples[entry.label])
        entry.row["throughput"] = measure.throughput(samples[entry.label])
        if setting.memory:
            entry.row["peak_memory_bytes"] = _memory(entry, batch)
    noise = measure.noise_in(samples, subjects[0].label)
    where = {"batch": batch, "threads": entries[0].row["threads"]}
    ratios = [
        {"a": a.label, "b": b.label, **where,
         **measure.ratio(samples[a.label], samples[b.label]).to_json()}
        for a, b in itertools.combinations(entries, 2)
    ]  # fmt: skip
    return {**noise.to_json(), **where, "warning": measure.too_noisy(noise), "ratios": ratios}


def _timed(entry: _Entry, batch: int) -> measure.Subject:
    assert entry.session is not None
    run = partial(measure.run_batch, entry.session, entry.subject.batch(batch))
    return measure.Subject(entry.label, run, batch, entry.row["threads"])


def _memory(entry: _Entry, batch: int) -> int | None:
    if entry.runtime.takes != "onnx":
        return None
    artifact = measure.Artifact(entry.subject.path, entry.runtime, entry.lowering, None, batch)
    try:
        return peak_memory(artifact).peak_bytes
    except FettleError:
        return None


def _close(entries: Sequence[_Entry]) -> None:
    for entry in entries:
        assert entry.session is not None
        entry.session.close()
        entry.session = None
