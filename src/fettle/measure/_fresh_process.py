"""Starting the process that is measured, and reading what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from time import monotonic_ns
from typing import Any

from fettle.core.errors import CheckFailed, InputError, ModelError
from fettle.measure._graph import find_model
from fettle.measure._metric import Artifact
from fettle.runtimes import Runtime

SECONDS = 300.0
_PROBE = Path(__file__).with_name("_memory_probe.py")


def serve_once(
    subject: Artifact, runs: int, warm: bool = False, timeout_seconds: float = SECONDS
) -> dict[str, Any]:
    """Return `ms` and `bytes` of a fresh process that loads the artifact and runs it.

    Raises:
        InputError: the artifact names no runtime, or `runs` is less than 1.
        ModelError: the runtime refuses the model; the message says why.
        CheckFailed: the process died, or took too long.
    """
    asked = {**_request(subject, runs), "warm": warm, "spawned_ns": monotonic_ns()}
    # by its path, and -P: `-m` would import all of `measure` first, and be charged for it
    command = [sys.executable, "-P", str(_PROBE), json.dumps(asked)]
    try:
        done = subprocess.run(  # noqa: S603  (our own module, no shell)
            command, capture_output=True, text=True, timeout=timeout_seconds, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise CheckFailed(
            f"the process that runs the model took longer than {timeout_seconds:g} s; give it"
            " more with `timeout_seconds`"
        ) from error
    return _answer(done)


def _request(subject: Artifact, runs: int) -> dict[str, Any]:
    runtime = subject.runtime
    if runtime is None or (runtime.takes != "onnx" and subject.module is None):
        raise InputError(
            f"memory and start-up expect an artifact with a runtime that runs ONNX, or one with"
            f" `module`, got `{runtime}`: Artifact(path, runtime=RUNTIMES.make('onnxruntime'))"
        )
    if runs < 1:
        raise InputError(f"`runs` expects at least 1, got {runs}")
    inputs = subject.task.example_inputs(1) if subject.task else {}
    return {
        **_model_of(subject, runtime),
        "runtime": runtime.name(),
        "knobs": runtime.values(),
        "lowering": list(subject.lowering),
        "batch": subject.batch,
        "shapes": {
            **(subject.module.shapes if subject.module else {}),
            **{name: list(array.shape[1:]) for name, array in inputs.items()},
        },
        "runs": runs,
    }


def _model_of(subject: Artifact, runtime: Runtime) -> dict[str, Any]:
    if runtime.takes == "onnx":
        return {"model": str(find_model(subject.path).resolve())}
    assert subject.module is not None
    return {"module": subject.module.to_json()}


def _answer(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Read the process's last line; what the engine printed before it is passed over."""
    try:
        answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError) as error:
        told = done.stderr.strip().splitlines()[-1:] or ["nothing"]
        raise CheckFailed(
            f"the process that is measured ended with code {done.returncode} and said:"
            f" {told[0]}; code -9 means that the system ran out of memory"
        ) from error
    if "refused" in answer:
        raise ModelError(answer["refused"])
    return answer
