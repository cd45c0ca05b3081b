"""The roofline of an artifact: how fast this machine could run it at the most.

Each step of the graph takes at least `2 · products / peak`, with the peak of the precision that the
engine really runs it in, and at least `bytes / bandwidth`; the larger of both bounds the step, and
the sum over the steps bounds the model, for its steps follow each other. Measured time over
`bound_ms` says how much there is to win without changing the model; `bound_ms` over measured time
is the fraction of its own bound that an artifact reaches.

What is counted as moved is told in `_traffic`: the least that any fusion of element-wise operators
allows. Weights come out of a working set of all weights, activations out of what the step itself
moves: both may sit in a cache, and then count at the cache's rate.

Williams, Waterman, Patterson, "Roofline: An Insightful Visual Performance Model for Multicore
Architectures", Communications of the ACM 52(4), 2009.

Example:
    session = OnnxRuntime(threads=1).build(path, lowering)
    found = roofline(path, session, inputs, peaks_of(threads=1))
    found.bound_ms, found.fraction(measured_ms=6.3)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fettle.core.arrays import Arrays
from fettle.core.errors import InputError
from fettle.measure._matching import matched
from fettle.measure._traffic import Step, Traffic, traffic_of
from fettle.measure.peaks import Peaks
from fettle.runtimes import LayerPrecision, Session

_HALVES = ("bf16", "f16")


@dataclass(frozen=True)
class LayerBound:
    """The least that one step of the graph takes here; `nodes` are what can be fused into it."""

    name: str
    op: str
    nodes: tuple[str, ...]
    precision: str
    macs: int
    bytes: int
    compute_ms: float
    memory_ms: float

    @property
    def bound_ms(self) -> float:
        """The larger of the time to compute and the time to move."""
        return max(self.compute_ms, self.memory_ms)

    @property
    def limit(self) -> str:
        """What bounds it: "compute" or "memory"."""
        return "compute" if self.compute_ms >= self.memory_ms else "memory"

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "name": self.name,
            "op": self.op,
            "nodes": list(self.nodes),
            "precision": self.precision,
            "macs": self.macs,
            "bytes": self.bytes,
            "compute_ms": self.compute_ms,
            "memory_ms": self.memory_ms,
            "bound_ms": self.bound_ms,
            "limit": self.limit,
        }


@dataclass(frozen=True)
class Roofline:
    """The bounds of all steps for one batch; `bound_ms` is their sum."""

    layers: tuple[LayerBound, ...]

    @property
    def bound_ms(self) -> float:
        """The least time for one batch."""
        return sum(layer.bound_ms for layer in self.layers)

    def fraction(self, measured_ms: float) -> float:
        """Return bound over measured time: 1 is as fast as this machine can.

        More than 1 says that the peaks were measured while the machine was busy: measure them
        once more with `peaks_of(threads, again=True)`, which only raises them.

        Raises:
            InputError: a time that isn't positive.
        """
        if not measured_ms > 0:
            raise InputError(f"`measured_ms` expects a positive time, got {measured_ms}")
        return self.bound_ms / measured_ms

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form: `bound_ms` and `layers`."""
        return {"bound_ms": self.bound_ms, "layers": [layer.to_json() for layer in self.layers]}


def roofline(model: str | Path, session: Session, inputs: Arrays, peaks: Peaks) -> Roofline:
    """Return the bounds of `model` as `session` runs it on one batch of `inputs`.

    Args:
        model: the ONNX file that the session was built from, before any lowering; for a live
            torch module, its export.
        session: tells the precision of each layer.
        inputs: named as in the file; a single one may have any name.
        peaks: of as many threads as the session uses.

    Raises:
        ModelError: no readable ONNX, or a shape that can't be known.
    """
    return bounds_of(traffic_of(model, shapes_of(model, inputs)), session.layers(), peaks)


def shapes_of(model: str | Path, inputs: Arrays) -> dict[str, tuple[int, ...]]:
    """Return the shapes of `inputs` under the names that the file gives them."""
    from fettle.measure._graph import read

    graph = read(model).graph
    held = {tensor.name for tensor in graph.initializer}
    names = [value.name for value in graph.input if value.name not in held]
    if len(names) == len(inputs) == 1:
        return {names[0]: next(iter(inputs.values())).shape}
    return {name: array.shape for name, array in inputs.items()}


def bounds_of(traffic: Traffic, layers: Sequence[LayerPrecision], peaks: Peaks) -> Roofline:
    """Return the bounds of steps that run in the precisions that `layers` tell."""
    found = precisions_of(traffic, layers)
    halved = any(layer.precision in _HALVES for layer in layers)
    width = 2 if halved else 4
    held = sum(step.weights.in_bytes(width) for step in traffic.steps)
    return Roofline(tuple(
        _bound(step, precision, peaks, width, held)
        for step, precision in zip(traffic.steps, found, strict=True)
    ))  # fmt: skip


def precisions_of(traffic: Traffic, layers: Sequence[LayerPrecision]) -> list[str]:
    """Return what each step runs in; what the engine doesn't tell, as the graph says."""
    told: dict[int, str] = {}
    for layer, nodes in zip(layers, matched(layers, traffic), strict=True):
        for node in nodes:
            step = traffic.step_of[node]
            if traffic.steps[step].name == node:
                told[step] = layer.precision
    return [
        told.get(index, "int8" if step.quantized else "f32")
        for index, step in enumerate(traffic.steps)
    ]


def _bound(step: Step, precision: str, peaks: Peaks, width: int, held: int) -> LayerBound:
    weights, moved = step.weights.in_bytes(width), step.activations.in_bytes(width)
    memory = weights / peaks.read_rate(held) + moved / peaks.read_rate(moved)
    compute = 2 * step.products / peaks.rate(precision)
    return LayerBound(step.name, step.op, tuple(step.nodes), precision, step.macs,
                      weights + moved, 1000 * compute, 1000 * memory)  # fmt: skip
