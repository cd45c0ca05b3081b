"""What a search makes small: time a request, time an example, bytes on disk, or memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from fettle.core.errors import KnobError
from fettle.measure import onnx_bytes
from fettle.search._measuring import Measuring
from fettle.search._trial import Trial


class Objective(ABC):
    """A cost of a trial; lower is better."""

    name: str

    def observe(self, measuring: Measuring, trials: Sequence[Trial]) -> None:
        """Measure what the cost needs beside latency."""
        del measuring, trials

    @abstractmethod
    def cost(self, trial: Trial) -> float:
        """Return the cost of a measured trial."""


class Latency(Objective):
    """Median time of a request, in ms.

    Trials are timed in different runs, each beside the fastest untouched model. So the cost is
    that model's time over the ratio, which doesn't drift with the machine.
    """

    name = "latency"

    def cost(self, trial: Trial) -> float:
        """Return the median latency of a request in ms."""
        return float(trial.row.get("comparable_ms", trial.row["latency_ms"]["p50"]))


class Throughput(Objective):
    """Mean time an example takes when requests follow each other, in seconds."""

    name = "throughput"

    def cost(self, trial: Trial) -> float:
        """Return the seconds an example takes."""
        return 1 / float(trial.row["throughput"])


class Size(Objective):
    """Bytes of the model on disk; a live module counts as infinite."""

    name = "size"

    def cost(self, trial: Trial) -> float:
        """Return the bytes on disk."""
        return onnx_bytes(trial.model) if isinstance(trial.model, Path) else float("inf")


class Memory(Objective):
    """Peak resident memory of a fresh process, in bytes."""

    name = "memory"

    def observe(self, measuring: Measuring, trials: Sequence[Trial]) -> None:
        """Run each trial in a process of its own."""
        for trial in trials:
            if "peak_memory" not in trial.row:
                trial.row["peak_memory"] = measuring.peak_memory(trial)

    def cost(self, trial: Trial) -> float:
        """Return the peak memory in bytes."""
        found = trial.row.get("peak_memory")
        return float(found) if found else float("inf")


OBJECTIVES = {cls.name: cls for cls in (Latency, Throughput, Size, Memory)}


def objective_of(name: str) -> Objective:
    """Return the objective called `name`.

    Raises:
        KnobError: there is none.
    """
    if name not in OBJECTIVES:
        raise KnobError(f"`objective` expects one of {', '.join(OBJECTIVES)}, got `{name}`")
    return OBJECTIVES[name]()
