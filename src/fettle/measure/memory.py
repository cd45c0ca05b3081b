"""Memory of a process that does nothing but load a model and run it.

In the process of the search, memory holds whatever came before. So a fresh interpreter is
started that imports the engine, builds the session, runs it, and tells what it holds.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from fettle.core.measurement import Measurement
from fettle.measure._fresh_process import SECONDS, serve_once
from fettle.measure._metric import Artifact, Metric


@dataclass(frozen=True)
class Footprint:
    """Memory of a serving process in bytes, the interpreter included.

    `peak_bytes` and `baseline_bytes` are high-water marks of resident memory (VmHWM): of the whole
    run, and with the engine imported but nothing loaded. The rest is what is resident at a moment:
    with the engine `imported`, the model `loaded`, and after requests were `served`. Then
    `unique_bytes` (USS) is what a further process of the same kind would cost, and
    `proportional_bytes` (PSS) counts shared pages in parts. None where the system doesn't tell.
    """

    peak_bytes: int
    baseline_bytes: int
    imported_bytes: int | None = None
    loaded_bytes: int | None = None
    served_bytes: int | None = None
    unique_bytes: int | None = None
    proportional_bytes: int | None = None

    def to_json(self) -> dict[str, int | None]:
        """Return the JSON form."""
        return asdict(self)


def peak_memory(subject: Artifact, runs: int = 5, timeout_seconds: float = SECONDS) -> Footprint:
    """Return the memory of a fresh process that runs the artifact `runs` times.

    Inputs are zeros of the model's shapes; free dimensions but the batch are 1, unless the
    artifact's task gives its own.

    Raises:
        InputError: the artifact names no runtime.
        ModelError: the runtime refuses the model; the message says why.
        CheckFailed: the process died, or took too long.
    """
    return footprint_in(serve_once(subject, runs, timeout_seconds=timeout_seconds))


def footprint_in(answer: dict[str, Any]) -> Footprint:
    """Read what a measured process said about its memory."""
    return Footprint(**{f"{name}_bytes": value for name, value in answer["bytes"].items()})


@dataclass(frozen=True, kw_only=True)
class Memory(Metric):
    """Peak resident memory of a fresh process that loads the model and runs it."""

    def measure(self, subject: Artifact) -> Measurement:
        """Start the process and read its high-water mark."""
        return Measurement.exact("peak_memory", peak_memory(subject).peak_bytes, "B")
