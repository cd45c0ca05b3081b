"""Start-up: how long until a fresh process has answered its first request, and in which parts.

    cold start = process + engine import + build + first inference

`process` is the interpreter with fettle's own imports; `build` includes the lowering of the graph
and the engine's compilation. The files were read before, so they come from the system's cache:
cold is the process, not the disk. A warm process, which has the engine imported and another session
running, spends `warm_build` on a further session and `warm_first_inference` on its first request.
`later_inference` is the last of the requests after the first.

Each number is the geometric mean over fresh processes with Student's 95 % interval on logarithms:
start-up times scatter by factors, upwards.

Example:
    found = startup_of(Artifact(path, RUNTIMES.make("onnxruntime", threads=1)), times=5)
    found.parts["cold_start"].value, found.footprint.served_bytes
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fettle.core.errors import InputError
from fettle.core.measurement import Measurement
from fettle.core.progress import Reporter, Silent
from fettle.measure._fresh_process import SECONDS, serve_once
from fettle.measure._intervals import geometric_interval
from fettle.measure._metric import Artifact
from fettle.measure.memory import Footprint, footprint_in

_COLD = ("process", "engine_import", "build", "first_inference")


@dataclass(frozen=True)
class Startup:
    """Times in milliseconds by part, each with an interval, and the memory of the processes.

    The parts: cold_start, process, engine_import, build, first_inference, later_inference,
    warm_build, warm_first_inference. `footprint` holds the median of each number.
    """

    parts: Mapping[str, Measurement]
    footprint: Footprint

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form: `{part}_ms: {value, low, high, n}` and `memory`."""
        found = {
            f"{name}_ms": {"value": m.value, "low": m.low, "high": m.high, "n": m.n}
            for name, m in self.parts.items()
        }
        return {**found, "memory": self.footprint.to_json()}


def startup_of(
    subject: Artifact,
    times: int = 5,
    progress: Reporter | None = None,
    timeout_seconds: float = SECONDS,
) -> Startup:
    """Start the artifact in `times` fresh processes, one after the other.

    One process more goes first, uncounted: it brings the files into the system's cache.

    Raises:
        InputError: the artifact names no runtime, or `times` is less than 2.
        ModelError: the runtime refuses the model; the message says why.
        CheckFailed: a process died, or took too long.
    """
    if times < 2:
        raise InputError(f"`times` expects at least 2 fresh processes, got {times}")
    answers = []
    with (progress or Silent()).bar("start-up", times + 1) as bar:
        for _ in range(times + 1):
            answers.append(serve_once(subject, 5, warm=True, timeout_seconds=timeout_seconds))
            bar.step()
    return startup_in(answers[1:])


def startup_in(answers: Sequence[dict[str, Any]]) -> Startup:
    """Put together what measured processes said, two or more."""
    parts = [
        {"cold_start": sum(answer["ms"][part] for part in _COLD), **answer["ms"]}
        for answer in answers
    ]
    footprints = [answer["bytes"] for answer in answers]
    middle = {key: _middle([held[key] for held in footprints]) for key in footprints[0]}
    return Startup(
        {name: _measured(name, [part[name] for part in parts]) for name in parts[0]},
        footprint_in({"bytes": middle}),
    )


def _measured(name: str, ms: Sequence[float]) -> Measurement:
    value, low, high = geometric_interval(np.maximum(ms, 1e-6))
    return Measurement(name, value, "ms", "lower", low, high, len(ms))


def _middle(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return int(np.median(known)) if known else None
