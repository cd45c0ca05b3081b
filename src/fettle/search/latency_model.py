"""The latency model: what a candidate will take on this machine, told from its kernels.

A graph, lowered as the engine would get it, is cut into kernels (`_kernels`); a table holds what
each takes (`_kernel_table`); the sum is corrected by what whole models took that were timed in the
study (`_calibration`), and the correction tells its own error. What isn't in the table is measured,
all of it side by side in one session, by the engine's own timers (`_kernel_sheet`).

The rows of the profile of a whole model, which is timed anyway, are not taken: engines rename,
split and merge layers, so that what a row stands for must be guessed, and a new width needs a
measurement of its own in any case; one way for all entries errs alike in all of them, which the
calibration then takes out. On a sheet, engines fuse kernels as they do in the whole: the rows of
ResNet-20 in INT8 on OpenVINO were the same one by one, those of unaligned widths too.

A prediction never replaces the measurement that a verdict rests on.

Example:
    model = LatencyModel(OnnxRuntime(threads=1), task.example_inputs(64), lowering)
    for path, ms in timed:
        model.observe(path, ms)
    found = model.predict(candidate)
    found.ms, found.low, found.high, model.error()
    model.by_layer(candidate)                       # where the time goes
    model.ms([narrowed(kernel, outputs=0.5) for kernel in model.kernels(candidate)])
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from fettle.core.arrays import Arrays
from fettle.core.errors import InputError, ModelError
from fettle.measure import shapes_of
from fettle.runtimes import Runtime, lowered
from fettle.search._calibration import Calibration, Miss, fit, miss
from fettle.search._kernel_table import KernelTable
from fettle.search._kernel_widths import narrowed
from fettle.search._kernels import Kernel, kernels_of

__all__ = ["Calibration", "Kernel", "LatencyModel", "LayerMs", "Miss", "Predicted", "narrowed"]

_LEAST_ERROR = 0.03  # relative; what two sessions of one model differ by, so no more can be claimed


@dataclass(frozen=True)
class Predicted:
    """A latency in ms that wasn't measured.

    `low` and `high` are as far away as nine of ten truths lay of the models left out in turn (of
    fewer than ten models, the furthest: of three, they hold three of four truths, no more). They
    are 0 and infinite while too few were observed. `measured` is how many kernels had to be timed.
    """

    ms: float
    low: float
    high: float
    measured: int

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form; an unknown upper bound is null there."""
        high = self.high if math.isfinite(self.high) else None
        return {"ms": self.ms, "low": self.low, "high": high, "measured": self.measured}


@dataclass(frozen=True)
class LayerMs:
    """What one kernel of a model takes.

    `name` is the node that opens it; `nodes` are all of them, under the names of the lowered graph.
    """

    name: str
    key: str
    ms: float
    nodes: tuple[str, ...]


class LatencyModel:
    """Predicts the median latency of ONNX files on one runtime, for one batch of inputs.

    Args:
        runtime: who runs them, with threads and precision.
        inputs: one batch, whose shapes count, not its contents.
        lowering: the passes that an artifact is lowered by when its session is built.
        cache: where the table lies; by default, in fettle's cache.
    """

    def __init__(
        self,
        runtime: Runtime,
        inputs: Arrays,
        lowering: Sequence[str] = (),
        cache: Path | None = None,
    ) -> None:
        if not inputs:
            raise InputError("`inputs` expects one batch of named arrays, got none")
        self.runtime, self.inputs, self.lowering = runtime, inputs, tuple(lowering)
        self.table = KernelTable(runtime, cache)
        self._parts: dict[Path, float] = {}
        self._wholes: dict[Path, float] = {}
        self._calibration = Calibration()

    def predict(self, path: Path) -> Predicted:
        """Return what the model at `path` will take, measuring the kernels that are not known.

        Raises:
            ModelError: no sound ONNX file, or one whose kernels can't be timed alone.
        """
        kernels, times = self._split(path)
        missing = len(self.table.missing(kernels))
        ms = self._calibration(times * sum(self.table.of(kernels)))
        error = self.error()
        if error is None:
            return Predicted(ms, 0.0, math.inf, missing)
        off = 1 + max(error.p90, _LEAST_ERROR)
        return Predicted(ms, ms / off, ms * off, missing)

    def observe(self, path: Path, ms: float) -> None:
        """Learn from a model that was timed as a whole; once more, the last time counts.

        Raises:
            InputError: a time that isn't positive.
            ModelError: as `predict`.
        """
        if not 0 < ms < math.inf:
            raise InputError(f"`ms` expects a positive time, got {ms}")
        kernels, times = self._split(path)
        self._parts[path] = times * sum(self.table.of(kernels))
        self._wholes[path] = ms
        self._calibration = fit(*self._observed())

    def error(self) -> Miss | None:
        """Return how far predictions are off, or None while fewer than 3 models were observed."""
        return miss(*self._observed())

    def by_layer(self, path: Path) -> list[LayerMs]:
        """Return what each kernel takes, in order: all of `predict` but the offset of a call.

        Raises:
            ModelError: as `predict`.
        """
        kernels, times = self._split(path)
        return [
            LayerMs(kernel.name, kernel.key, times * ms, tuple(n.name for n in kernel.nodes))
            for kernel, ms in zip(kernels, self.ms(kernels), strict=True)
        ]

    def kernels(self, path: Path) -> list[Kernel]:
        """Return the kernels of the model at `path`, lowered, in order.

        Raises:
            ModelError: no sound ONNX file, or a shape that can't be known.
        """
        return self._split(path)[0]

    def ms(self, kernels: Sequence[Kernel]) -> list[float]:
        """Return what each kernel takes as part of a model, measuring those that are not known.

        Raises:
            ModelError: the engine refuses one, or doesn't tell times.
        """
        return [self._calibration.scale * ms for ms in self.table.of(kernels)]

    def _observed(self) -> tuple[list[float], list[float]]:
        return list(self._parts.values()), list(self._wholes.values())

    def _split(self, path: Path) -> tuple[list[Kernel], int]:
        """Return the kernels, and how often they run for all of `inputs`."""
        model = self._lowered(path)
        shapes, times = _fitting(model, shapes_of(path, self.inputs))
        return kernels_of(model, shapes), times

    def _lowered(self, path: Path) -> onnx.ModelProto:
        found = lowered(path, self.lowering)
        try:
            return onnx.load_from_string(found) if isinstance(found, bytes) else onnx.load(found)
        except Exception as error:  # protobuf and onnx raise many kinds for one cause: a bad file
            raise ModelError(f"{path} is no sound ONNX model ({error}); export it anew") from error


def _fitting(
    model: onnx.ModelProto, shapes: dict[str, tuple[int, ...]]
) -> tuple[dict[str, tuple[int, ...]], int]:
    """Return the shapes that a model of a fixed batch takes, and how many calls that makes."""
    times = 1
    found = dict(shapes)
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        shape = shapes.get(value.name, ())
        if shape and dims and dims[0].dim_value > 0 and dims[0].dim_value != shape[0]:
            fixed = dims[0].dim_value
            times = max(times, math.ceil(shape[0] / fixed))
            found[value.name] = (fixed, *shape[1:])
    return found, times
