"""`fettle bench`: any number of artifacts on any number of runtimes, in one interleaved run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fettle.core.errors import InputError, MissingError
from fettle.core.progress import Reporter
from fettle.core.shelf import RUNTIMES
from fettle.runtimes import Runtime
from fettle.search._bench_entry import MISSING, Entry, Where, open_entry
from fettle.search._bench_group import time_group
from fettle.search._bench_load import load_group, play
from fettle.search._bench_weight import bound, spend, weigh
from fettle.search._result import machine_json
from fettle.search.subject import Subject

_CHANNELS_LAST = "pytorch(layout='channels_last')"
# what takes long to build, such as mode='aot', is timed where it is asked for
_FORMS = {
    "openvino": ("openvino", "openvino(precision='bf16')"),
    "pytorch": ("pytorch", _CHANNELS_LAST, "pytorch(mode='compiled')"),
}


@dataclass(frozen=True)
class BenchSetting:
    """What is timed where, and for how long.

    `runtimes` is `all`, or recipes' names such as `openvino(precision='bf16')`; threads 0 are all
    there are; `concurrency` is how many clients ask at once; `seconds` goes to each group of the
    same batch, threads and concurrency. `memory` starts a fresh process for each row, `startup`
    several; `roofline` measures this machine's peaks, once. A `scenario` of MLPerf's takes the
    place of the interleaved timing; `bound_ms` is what p99 has to stay within in "server".
    `pairs`, where given, are the only ones of artifact and runtime that are timed.
    """

    runtimes: tuple[str, ...] = ("all",)
    batches: tuple[int, ...] = (1,)
    threads: tuple[int, ...] = (0,)
    seconds: float = 10.0
    memory: bool = True
    concurrency: tuple[int, ...] = (1,)
    startup: bool = False
    roofline: bool = True
    scenario: str | None = None
    bound_ms: float = 50.0
    pairs: frozenset[tuple[str, str]] = frozenset()

    def groups(self) -> list[Where]:
        """Return every combination once."""
        found = itertools.product(self.threads, self.batches, self.concurrency)
        return list(dict.fromkeys(Where(b, t, c) for t, b, c in found))


def bench(subjects: Sequence[Subject], setting: BenchSetting, progress: Reporter) -> dict[str, Any]:
    """Return the result of the contract: `rows`, `ratios`, `noise`, `machine` and more.

    Artifacts of the same group are timed against each other, interleaved; a ratio `a` over `b`
    above 1 says that `b` is that many times faster, unless `differs` is false.

    Raises:
        InputError: no subject, or the same twice.
        UnknownName: no such runtime.
    """
    names = [subject.name for subject in subjects]
    if not names or len(set(names)) < len(names):
        raise InputError(f"`bench` expects one artifact or several different ones, got {names}")
    rows: list[dict[str, Any]] = []
    groups: list[dict[str, Any]] = []
    for where in setting.groups():
        with _opened(subjects, setting, where) as entries:
            running = [entry for entry in entries if entry.session is not None]
            if running:
                progress.say(f"time {_words(where, len(running))}")
                groups.append(_measured(running, setting, progress))
            rows += [entry.row for entry in entries]
    noises = [group["noise"] for group in groups if group["noise"]]
    return {
        "rows": rows,
        "ratios": [ratio for group in groups for ratio in group["ratios"]],
        "noise": _widest(noises),
        "noises": noises,
        "interference": _interference(groups),
        "peaks": {str(g["peaks"]["threads"]): g["peaks"] for g in groups if g["peaks"]},
        "no_energy": next((group["no_energy"] for group in groups), None),
        "absent": _absent(setting),
        "machine": machine_json(),
    }


def _measured(
    running: Sequence[Entry], setting: BenchSetting, progress: Reporter
) -> dict[str, Any]:
    if setting.scenario:
        group = play(running, setting.scenario, setting.bound_ms, setting.seconds, progress)
    elif running[0].where.concurrency > 1:
        group = load_group(running, setting.seconds, progress)
    else:
        group = time_group(running, setting.seconds, progress)
    weigh(running, setting.memory, setting.startup, progress)
    no_energy = spend(running, setting.seconds / 4)
    peaks = bound(running, progress) if setting.roofline else None
    return {**group, "peaks": peaks.to_json() if peaks else None, "no_energy": no_energy}


def exit_code_of(result: dict[str, Any]) -> int:
    """Return 0 when anything ran; else 3 when only engines are missing here, else 2."""
    rows = result["rows"]
    if any(row["refused"] is None for row in rows):
        return 0
    missing = all(row["refused_kind"] == MISSING for row in rows)
    return MissingError.exit_code if missing else InputError.exit_code


@contextmanager
def _opened(
    subjects: Sequence[Subject], setting: BenchSetting, where: Where
) -> Iterator[list[Entry]]:
    entries: list[Entry] = []
    try:
        for subject in subjects:
            runtimes = _runtimes(setting, subject, where.threads)
            entries.extend(open_entry(subject, runtime, where) for runtime in runtimes)
        yield entries
    finally:
        for entry in entries:
            entry.close()


def _runtimes(setting: BenchSetting, subject: Subject, threads: int) -> list[Runtime]:
    everything = setting.runtimes == ("all",)
    names = _all_forms(subject) if everything else setting.runtimes
    chosen = [n for n in names if not setting.pairs or (subject.name, n) in setting.pairs]
    runtimes = [_runtime(name).but(threads=threads) for name in dict.fromkeys(chosen)]
    if not everything:
        return runtimes
    return [r for r in runtimes if r.supports() is None]


def _all_forms(subject: Subject) -> list[str]:
    """Return every engine that takes the artifact, in each form that may be its best."""
    names = [n for n in RUNTIMES.names() if subject.module is not None or _takes_onnx(n)]
    forms = [form for name in names for form in _FORMS.get(name, (name,))]
    useless = {_CHANNELS_LAST} if not subject.convolves() else set()
    return [f for f in forms if f not in useless and not (subject.quantized and "bf16" in f)]


def _takes_onnx(name: str) -> bool:
    try:
        return getattr(RUNTIMES.load(name), "takes", "onnx") == "onnx"
    except MissingError:
        return False


def _absent(setting: BenchSetting) -> dict[str, str]:
    """Return why engines that `all` would have timed are left out here."""
    if setting.runtimes != ("all",):
        return {}
    found = {}
    for name in RUNTIMES.names():
        for form in _FORMS.get(name, (name,)):
            try:
                reason = _runtime(form).supports()
            except MissingError as error:
                reason = str(error)
            if reason:
                found[form] = reason
    return found


def _runtime(text: str) -> Runtime:
    from fettle.core.recipe import Recipe

    runtime = Recipe.parse(f"@ {text}").runtime
    assert isinstance(runtime, Runtime)
    return runtime


def _words(where: Where, count: int) -> str:
    threads = where.to_json()["threads"]
    clients = f", {where.concurrency} clients" if where.concurrency > 1 else ""
    plural = "" if threads == 1 else "s"
    return f"{count} at batch {where.batch}, {threads} thread{plural}{clients}"


def _widest(noises: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    return max(noises, key=lambda n: n["high"] - n["low"]) if noises else None


def _interference(groups: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Return what disturbed the worst of the groups, and what was found wrong in any."""
    found = [group["interference"] for group in groups]
    if not found:
        return None
    worst = max(
        found, key=lambda each: (each["warning"] is not None, each.get("other_load") or 0.0)
    )
    warnings = dict.fromkeys(each["warning"] for each in found if each["warning"])
    return {**worst, "warning": "; ".join(warnings) or None}
