"""The process that is measured: `python -P _memory_probe.py JSON`.

It imports the engine, builds the session, runs it, and where asked builds and runs another one
while it is warm. Its last line on stdout is a JSON object: `ms` and `bytes` of each part, or
`refused`.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic_ns, perf_counter_ns
from typing import Any, TypeVar

import numpy as np

from fettle.core.arrays import TensorSpec
from fettle.core.errors import FettleError
from fettle.core.shelf import RUNTIMES

T = TypeVar("T")
_PROC = Path("/proc/self")


def probe(asked: dict[str, Any]) -> dict[str, Any]:
    """Do what is asked and return times and memory; or why the runtime refused."""
    try:
        return _serve(asked)
    except FettleError as error:
        return {"refused": str(error)}
    except Exception as error:  # whatever an engine throws at run time, the parent should hear
        return {"refused": f"{asked['runtime']} can't run the model: {error}"}


def _serve(asked: dict[str, Any]) -> dict[str, Any]:
    watch = _Watch()
    if "spawned_ns" in asked:
        watch.ms["process"] = (monotonic_ns() - asked["spawned_ns"]) / 1e6
    runtime: Any = watch.time("engine_import", lambda: _import_engine(asked))
    held = {"baseline": high_water(), "imported": resident()}
    build = lambda: runtime.build(_model(asked), asked["lowering"])  # noqa: E731
    session = watch.time("build", build)
    held["loaded"] = resident()
    inputs = {spec.name: _zeros(spec, asked) for spec in session.inputs}
    watch.time("first_inference", lambda: session.run(inputs))
    for _ in range(asked["runs"] - 1):
        watch.time("later_inference", lambda: session.run(inputs))
    held |= {"served": resident(), "peak": high_water(), **_own()}
    if asked.get("warm"):
        another = watch.time("warm_build", build)
        watch.time("warm_first_inference", lambda: another.run(inputs))
    return {"ms": watch.ms, "bytes": held}


def _model(asked: dict[str, Any]) -> Any:
    """Return the ONNX file, or make the torch module again; its room is imported only for that."""
    if "module" not in asked:
        return Path(asked["model"])
    from fettle import models
    from fettle.core.signature import Signature

    told = asked["module"]
    inputs = (TensorSpec(s["name"], s["dtype"], tuple(s["shape"])) for s in told["inputs"])
    signature = Signature(tuple(inputs), told["classes"], told["vocabulary"])
    return models.load(told["name"], weights=told["weights"], signature=signature)


class _Watch:
    """Times of named parts in milliseconds; of a part that comes again, the last."""

    def __init__(self) -> None:
        self.ms: dict[str, float] = {}

    def time(self, part: str, work: Callable[[], T]) -> T:
        start = perf_counter_ns()
        done = work()
        self.ms[part] = (perf_counter_ns() - start) / 1e6
        return done


def high_water() -> int:
    """Return this process's peak resident memory in bytes.

    VmHWM where the system has it: getrusage's number is inherited from the parent on Linux.
    """
    mark = _kilobytes("status").get("VmHWM")
    if mark is not None:
        return mark * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def resident() -> int | None:
    """Return this process's resident memory in bytes now, or None where the system doesn't tell."""
    now = _kilobytes("status").get("VmRSS")
    return None if now is None else now * 1024


def _own() -> dict[str, int]:
    """Return what the process holds of its own (`unique`) and with its share of what it shares
    with other processes (`proportional`), in bytes; nothing where the system doesn't tell.
    """
    told = _kilobytes("smaps_rollup")
    if "Pss" not in told:
        return {}
    unique = told.get("Private_Clean", 0) + told.get("Private_Dirty", 0)
    return {"unique": unique * 1024, "proportional": told["Pss"] * 1024}


def _kilobytes(name: str) -> dict[str, int]:
    """Return the lines `Name:  123 kB` of a file in /proc/self."""
    with suppress(OSError):
        lines = (_PROC / name).read_text(encoding="ascii").splitlines()
        fields = (line.split() for line in lines if line.endswith(" kB"))
        return {words[0].rstrip(":"): int(words[1]) for words in fields}
    return {}


def _import_engine(asked: dict[str, Any]) -> Any:
    """Make the runtime; some import their engine when they build only: do it here for all."""
    runtime = RUNTIMES.make(asked["runtime"], **asked["knobs"])
    with suppress(ImportError):
        importlib.import_module(asked["runtime"])
    return runtime


def _zeros(spec: TensorSpec, asked: dict[str, Any]) -> np.ndarray:
    """Written, not np.zeros: memory that nobody touched is not resident."""
    rest = asked["shapes"].get(spec.name) or [max(size, 1) for size in spec.shape[1:]]
    batch = spec.shape[:1] if spec.shape[:1] > (0,) else (asked["batch"],)
    return np.full((*batch, *rest) if spec.shape else (), 0, dtype=spec.dtype)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(probe(json.loads(sys.argv[1]))) + "\n")
