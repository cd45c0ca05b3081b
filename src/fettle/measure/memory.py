"""Peak memory of a process that does nothing but load a model and run it.

In the process of the search, memory holds whatever came before. So a fresh interpreter is
started that imports the engine, builds the session, runs it, and tells its high-water mark.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Any

from fettle.core.errors import CheckFailed, InputError, ModelError
from fettle.core.measurement import Measurement
from fettle.measure._graph import find_model
from fettle.measure._metric import Artifact, Metric

_SECONDS = 300.0


@dataclass(frozen=True)
class PeakMemory:
    """High-water marks of resident memory in bytes (VmHWM), the interpreter included.

    `baseline_bytes` was reached with the engine imported and nothing loaded yet.
    """

    peak_bytes: int
    baseline_bytes: int

    def to_json(self) -> dict[str, int]:
        """Return the JSON form."""
        return asdict(self)


def peak_memory(subject: Artifact, runs: int = 5, timeout_seconds: float = _SECONDS) -> PeakMemory:
    """Return the peak memory of a fresh process that runs the artifact `runs` times.

    Inputs are zeros of the model's shapes; free dimensions but the batch are 1, unless the
    artifact's task gives its own.

    Raises:
        InputError: the artifact names no runtime.
        ModelError: the runtime refuses the model; the message says why.
        CheckFailed: the process died, or took too long.
    """
    asked = json.dumps(_request(subject, runs))
    command = [sys.executable, "-m", "fettle.measure._memory_probe", asked]
    try:
        done = subprocess.run(  # noqa: S603  (our own module, no shell)
            command, capture_output=True, text=True, timeout=timeout_seconds, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise CheckFailed(
            f"measuring the memory of `{subject.path}` took longer than {timeout_seconds:g} s;"
            " give it a smaller batch or more time"
        ) from error
    return _answer(done)


@dataclass(frozen=True, kw_only=True)
class Memory(Metric):
    """Peak resident memory of a fresh process that loads the model and runs it."""

    def measure(self, subject: Artifact) -> Measurement:
        """Start the process and read its high-water mark."""
        return Measurement.exact("peak_memory", peak_memory(subject).peak_bytes, "B")


def _request(subject: Artifact, runs: int) -> dict[str, Any]:
    runtime = subject.runtime
    if runtime is None or runtime.takes != "onnx":
        raise InputError(
            f"peak memory expects an artifact with a runtime that runs ONNX, got"
            f" `{runtime}`: Artifact(path, runtime=RUNTIMES.make('onnxruntime'))"
        )
    inputs = subject.task.example_inputs(1) if subject.task else {}
    return {
        "model": str(find_model(subject.path).resolve()),
        "runtime": runtime.name(),
        "knobs": runtime.values(),
        "lowering": list(subject.lowering),
        "batch": subject.batch,
        "shapes": {name: list(array.shape[1:]) for name, array in inputs.items()},
        "runs": runs,
    }


def _answer(done: subprocess.CompletedProcess[str]) -> PeakMemory:
    """Read the process's last line; what the engine printed before it is passed over."""
    try:
        answer = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError) as error:
        told = done.stderr.strip().splitlines()[-1:] or ["nothing"]
        raise CheckFailed(
            f"the process that measures memory ended with code {done.returncode} and said:"
            f" {told[0]}; code -9 means that the system ran out of memory"
        ) from error
    if "refused" in answer:
        raise ModelError(answer["refused"])
    return PeakMemory(answer["peak_bytes"], answer["baseline_bytes"])
