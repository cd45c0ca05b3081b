"""Replay: run a failed prediction again, on the model that failed and on the one beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fettle.core.arrays import Arrays
from fettle.core.bundle import Bundle
from fettle.core.errors import MissingError, ModelError
from fettle.core.hashing import fingerprint
from fettle.core.machine import this_machine, versions
from fettle.core.recipe import Recipe
from fettle.monitor.capsule import Capsule
from fettle.runtimes import Runtime, Session

_PLAIN = "onnxruntime"  # what runs a bundle that names no runtime


@dataclass(frozen=True)
class Run:
    """What one bundle answers to the inputs of a capsule: outputs, or an error."""

    who: str
    path: str
    sha: str
    outputs: Arrays | None
    error: str | None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, without outputs."""
        return {"who": self.who, "bundle": self.path, "sha": self.sha, "error": self.error}


@dataclass(frozen=True)
class Difference:
    """How far two bundles' outputs of one name lie apart, over `n` examples.

    `max` and `mean` are absolute, `scale` is the mean absolute value of the first; `flips` counts
    examples whose largest value is elsewhere. `reason` says why they can't be compared.
    """

    output: str
    n: int
    max: float | None = None
    mean: float | None = None
    scale: float | None = None
    flips: int | None = None
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return dict(vars(self))


@dataclass(frozen=True)
class Replayed:
    """A capsule, run again: who failed, how the outputs differ, and what changed since."""

    capsule: Capsule
    runs: tuple[Run, ...]
    differences: tuple[Difference, ...]
    changed: Mapping[str, tuple[str, str]]

    @property
    def failed(self) -> bool:
        """Whether the first model failed again."""
        return self.runs[0].error is not None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "failed": self.failed,
            "capsule": self.capsule.to_json(),
            "runs": [run.to_json() for run in self.runs],
            "differences": [difference.to_json() for difference in self.differences],
            "changed": {name: list(both) for name, both in self.changed.items()},
        }


def replay(capsule: Capsule, bundles: Mapping[str, Path]) -> Replayed:
    """Run the inputs of a capsule on bundles, by names such as "model" and "shadow".

    Raises:
        BundleError: no bundle, or a corrupted one.
        MissingError: an engine that isn't on this machine.
    """
    runs = tuple(_run(capsule, who, path) for who, path in bundles.items())
    outputs = [run.outputs for run in runs if run.outputs is not None]
    differences = compare(outputs[0], outputs[1]) if len(outputs) == 2 else ()
    return Replayed(capsule, runs, differences, _changed(capsule, runs[0].sha))


def compare(one: Arrays, other: Arrays) -> tuple[Difference, ...]:
    """Return how far outputs of one name lie apart, in float64, batch first."""
    return tuple(
        _difference(name, array, other[name]) for name, array in one.items() if name in other
    )


def open_session(bundle: Bundle) -> Session:
    """Build the session that the bundle's manifest tells of: engine, options and lowering.

    Raises:
        MissingError: its engine isn't on this machine.
        ModelError: it runs no ONNX file, or refuses this one.
    """
    runtime = Recipe.parse(f"@ {bundle.manifest.runtime or _PLAIN}").runtime
    assert isinstance(runtime, Runtime)
    if runtime.takes != "onnx":
        raise ModelError(f"`{runtime}` runs no ONNX file: optimize for another runtime")
    if (reason := runtime.supports()) is not None:
        raise MissingError(f"the bundle in {bundle.path} runs on `{runtime.name()}`", reason)
    return runtime.build(bundle.model_path, bundle.manifest.lowering.get(runtime.name(), ()))


def _run(capsule: Capsule, who: str, path: Path) -> Run:
    bundle = Bundle.open(path)
    sha = fingerprint(bundle.manifest.to_json())
    outputs: Arrays | None = None
    try:
        session = open_session(bundle)
        try:
            outputs = session.run(capsule.inputs)
        finally:
            session.close()
        error = _odd(outputs)
    except MissingError:
        raise
    except Exception as raised:  # whatever an engine fails with is what is looked for
        error = f"{type(raised).__name__}: {raised}"
    return Run(who, str(path), sha, outputs, error)


def _odd(outputs: Arrays) -> str | None:
    """Say which outputs hold numbers that are not finite; None when none does."""
    counts = {
        name: int((~np.isfinite(array)).sum())
        for name, array in outputs.items()
        if array.dtype.kind == "f"
    }
    odd = [f"{count} in `{name}`" for name, count in counts.items() if count]
    return f"numbers that are not finite: {', '.join(odd)}" if odd else None


def _difference(name: str, one: np.ndarray, other: np.ndarray) -> Difference:
    n = len(one) if one.ndim else 1
    reason = _incomparable(one, other)
    if reason:
        return Difference(name, n, reason=reason)
    a, b = one.astype(np.float64), other.astype(np.float64)
    flips = int((a.argmax(1) != b.argmax(1)).sum()) if a.ndim == 2 else None
    with np.errstate(over="ignore"):
        found = (float(np.abs(a - b).max()), float(np.abs(a - b).mean()), float(np.abs(a).mean()))
    if not np.isfinite(found).all():
        return Difference(name, n, reason="they lie further apart than float64 can tell")
    return Difference(name, n, *found, flips)


def _incomparable(one: np.ndarray, other: np.ndarray) -> str | None:
    if one.shape != other.shape:
        return f"shapes {list(one.shape)} and {list(other.shape)}"
    if one.dtype.kind not in "biuf" or other.dtype.kind not in "biuf":
        return f"types {one.dtype} and {other.dtype}"
    if not one.size:
        return "nothing in it"
    finite = np.isfinite(one).all() and np.isfinite(other).all()
    return None if finite else "numbers that are not finite"


def _changed(capsule: Capsule, sha: str) -> dict[str, tuple[str, str]]:
    """Return what is other than it was when the prediction failed: then, and now."""
    then = {"bundle": capsule.prediction.sha, "processor": str(capsule.machine.get("cpu", ""))}
    now = {"bundle": sha, "processor": this_machine().cpu}
    then, now = {**then, **capsule.versions}, {**now, **versions()}
    pairs = {name: (then.get(name, "–"), now.get(name, "–")) for name in {**then, **now}}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
