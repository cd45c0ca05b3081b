"""The pre-deployment checklist: what a bundle must show on the machine that is to serve it.

Each check gives a row: passed, failed, or neither where there is nothing to hold a number against.
The rows go into the bundle's manifest, which is sealed anew; the server takes from them which batch
sizes it may build.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fettle.core.bundle import Bundle, write_manifest
from fettle.core.errors import InputError
from fettle.core.machine import this_machine, usable_threads
from fettle.core.progress import Reporter
from fettle.core.recipe import Recipe
from fettle.runtimes import Runtime
from fettle.search import _checks as checks
from fettle.search._result import machine_json
from fettle.search._saturating import EXAMPLES, saturation_check
from fettle.search.journal import now
from fettle.search.subject import resolve

if TYPE_CHECKING:
    from fettle.tasks import Task

MAX_BATCH = 64
Row = dict[str, Any]


@dataclass(frozen=True)
class CheckSetting:
    """What is asked of a bundle.

    `seconds` is for the timing of all batch sizes together. `p99_ms` bounds the latency of one
    example, `memory_bytes` that of a process that serves the largest batch; None asks for nothing.
    """

    max_batch: int = MAX_BATCH
    threads: int = 0
    seconds: float = 20.0
    p99_ms: float | None = None
    memory_bytes: float | None = None

    def __post_init__(self) -> None:
        if self.max_batch < 1:
            raise InputError(f"`--max-batch` expects at least 1, got {self.max_batch}")


def check(
    path: str, task: Task, setting: CheckSetting, progress: Reporter, scratch: Path
) -> dict[str, Any]:
    """Run the checklist on the bundle in folder `path`; write it into the manifest.

    Returns:
        `passed`, `checks`, `latency_ms` of each batch size, `bundle`, `machine`, `created`.

    Raises:
        BundleError: no bundle, or one that is corrupted.
        InputError: data whose inputs don't fit the bundle.
        MissingError: the bundle's engine isn't here.
    """
    bundle = Bundle.open(path)
    runtime = _runtime_of(bundle, setting.threads)
    lowering = resolve(path, scratch).lowering(runtime)
    session = runtime.build(bundle.model_path, lowering)
    try:
        ground = checks.Ground(bundle, runtime, lowering, session, task)
        rows, latency = _all(ground, setting, progress)
    finally:
        session.close()
    result = _result(bundle, rows, latency)
    _write(bundle, result)
    return result


def _all(
    ground: checks.Ground, setting: CheckSetting, progress: Reporter
) -> tuple[list[Row], dict[int, Row]]:
    progress.say("replay the golden examples")
    rows = [checks.proven(ground.bundle), checks.golden(ground)]
    progress.say("score the test split")
    rows += [checks.accuracy(ground), checks.representative(ground), checks.edges(ground)]
    progress.say(f"try batches up to {setting.max_batch}")
    rows.append(checks.batches(ground, setting.max_batch))
    sizes = rows[-1]["sizes"] or [1]
    latency = checks.latencies(ground, sizes, setting.seconds, progress)
    rows.append(_latency_row(latency, setting.p99_ms))
    progress.say("measure memory")
    rows.append(checks.memory(ground, max(sizes), setting.memory_bytes))
    return [*rows, *_saturation(ground)], latency


def _latency_row(latency: dict[int, Row], limit: float | None) -> Row:
    size = min(latency)
    found = latency[size]
    told = ", ".join(f"p{q} {_ms(found[f'p{q}'])}" for q in (50, 95, 99))
    text = f"batch {size}: {told}"
    more = {"batch": size, "limit_ms": limit, "sizes": {str(k): v for k, v in latency.items()}}
    if limit is None:
        return checks.row("latency", None, text, **more)
    if found["p99"] is None:
        return checks.row("latency", None, f"{text}; too few runs for p99: more --seconds", **more)
    text += f"; p99 of at most {limit:g} ms is asked for"
    return checks.row("latency", found["p99"] <= limit, text, **more)


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g} ms"


def _saturation(ground: checks.Ground) -> list[Row]:
    path, inputs = ground.bundle.model_path, ground.inputs(EXAMPLES)
    found = saturation_check(path, inputs, ground.lowering, this_machine())
    return [{**each, "text": each["warning"] or f"share {each['share']}"} for each in found]


def _runtime_of(bundle: Bundle, threads: int) -> Runtime:
    runtime = Recipe.parse(f"@ {bundle.manifest.runtime or 'onnxruntime'}").runtime
    assert isinstance(runtime, Runtime)
    return runtime.but(threads=threads)


def _result(bundle: Bundle, rows: Sequence[Row], latency: dict[int, Row]) -> dict[str, Any]:
    stamp = {"at": now(), "cpu": this_machine().cpu, "threads": usable_threads()}
    return {
        "schema": 1,
        "bundle": str(bundle.path),
        "passed": all(row["passed"] is not False for row in rows),
        "checks": [{**row, **stamp} for row in rows],
        "latency_ms": {str(size): found for size, found in latency.items()},
        "created": stamp["at"],
        "machine": machine_json(),
    }


def _write(bundle: Bundle, result: dict[str, Any]) -> None:
    """Put the rows into the manifest, in the place of those of the same names."""
    new = {row["name"]: row for row in result["checks"]}
    old = [row for row in bundle.manifest.checks if row["name"] not in new]
    write_manifest(bundle.path, replace(bundle.manifest, checks=(*old, *new.values())))
