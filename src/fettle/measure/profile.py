"""One view of where a model's time goes, layer by layer, for every engine.

Each row is a layer as the engine runs it: what the engine calls it, which nodes of the ONNX file it
stands for, the precision that it really computes in, its time and its share of all layers' time,
what it has to compute and to move, and the least time that this takes here (`roofline`). A row that
the roofline says needs no time of its own (a reorder, a conversion, an element-wise operator that
could be fused) has a bound of 0: all of its time is lost to how the engine runs the model.

An engine's own timer costs time and doesn't see what happens between its layers; `gap_ms` is the
end-to-end time less the sum of the layers: positive is overhead outside of the layers, negative is
what profiling itself costs.

Example:
    session = OnnxRuntime(threads=1).build(path, lowering)
    found = profile(path, session, inputs, peaks_of(threads=1))
    for row in found.slowest(5):
        print(row.name, row.nodes, row.precision, row.ms, row.share, row.bound_ms)
    found.to_json()
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from fettle.core.arrays import Arrays
from fettle.core.errors import InputError
from fettle.measure._matching import matched
from fettle.measure._traffic import Traffic, traffic_of
from fettle.measure.peaks import Peaks
from fettle.measure.roofline import LayerBound, Roofline, bounds_of, shapes_of
from fettle.runtimes import LayerPrecision, LayerTime, Session

_WARM_RUNS = 3
_COUNTER = re.compile(r"_?\d+(?=$|/)")  # the number in a name of the engine's own making


@dataclass(frozen=True)
class LayerProfile:
    """One layer of the running engine; times in ms for one batch.

    `ms` is None and `share` 0 where the engine doesn't tell times; `shape` is empty where it
    doesn't tell shapes; `nodes` is empty for a layer that the engine put in itself.
    """

    name: str
    op: str
    nodes: tuple[str, ...]
    precision: str
    shape: tuple[int, ...]
    ms: float | None
    share: float
    macs: int
    bytes: int
    bound_ms: float

    @property
    def excess_ms(self) -> float:
        """Time beyond the bound: what a better kernel, or a fusion, could win here."""
        return max(0.0, (self.ms or 0.0) - self.bound_ms)

    @property
    def fraction(self) -> float | None:
        """Bound over time, or None where no time was told or it is 0."""
        return self.bound_ms / self.ms if self.ms else None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            **vars(self),
            "nodes": list(self.nodes),
            "shape": list(self.shape),
            "excess_ms": self.excess_ms,
            "fraction": self.fraction,
        }


@dataclass(frozen=True)
class Profile:
    """Every layer in order of execution, and the whole against its parts."""

    layers: tuple[LayerProfile, ...]
    total_ms: float
    bound_ms: float

    @property
    def layers_ms(self) -> float:
        """The sum of the layers' times."""
        return sum(layer.ms or 0.0 for layer in self.layers)

    @property
    def gap_ms(self) -> float:
        """End to end less the sum of the layers: overhead, or if negative, the cost of timing."""
        return self.total_ms - self.layers_ms

    @property
    def fraction(self) -> float:
        """The roofline's bound over the end-to-end time."""
        return self.bound_ms / self.total_ms

    def slowest(self, most: int = 10) -> list[LayerProfile]:
        """Return the layers that keep the model slow: the most time beyond their bound, first."""
        timed = [layer for layer in self.layers if layer.ms]
        return sorted(timed, key=lambda layer: -layer.excess_ms)[:most]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form; `slowest` holds the places of layers, the worst first."""
        place = {id(layer): index for index, layer in enumerate(self.layers)}
        return {
            "total_ms": self.total_ms,
            "layers_ms": self.layers_ms,
            "gap_ms": self.gap_ms,
            "bound_ms": self.bound_ms,
            "fraction": self.fraction,
            "slowest": [place[id(layer)] for layer in self.slowest()],
            "layers": [layer.to_json() for layer in self.layers],
        }


def profile(
    model: str | Path, session: Session, inputs: Arrays, peaks: Peaks, runs: int = 20
) -> Profile:
    """Return where `session` spends its time on one batch of `inputs`.

    Args:
        model: the ONNX file that the session was built from, before any lowering; for a live torch
            module, its export.
        session: of any runtime.
        inputs: one batch, named as the session's inputs.
        peaks: of as many threads as the session uses; see `peaks_of`.
        runs: how many runs each median is taken over, for the layers and for the whole.

    Raises:
        ModelError: no readable ONNX, or a shape that can't be known.
        InputError: `runs` below 1, or inputs that the session refuses.
    """
    if runs < 1:
        raise InputError(f"`runs` expects at least 1, got {runs}")
    traffic = traffic_of(model, shapes_of(model, inputs))
    total = _whole(session, inputs, runs)
    layers, times = session.layers(), session.layer_times(inputs, runs)
    bounds = bounds_of(traffic, layers, peaks)
    rows = _rows(joined(layers, times), traffic, bounds)
    return Profile(tuple(rows), total, bounds.bound_ms)


def _whole(session: Session, inputs: Arrays, runs: int) -> float:
    """Return the median end-to-end time in ms."""
    spent = []
    for _ in range(_WARM_RUNS + runs):
        start = perf_counter()
        session.run(inputs)
        spent.append(perf_counter() - start)
    return 1000 * float(np.median(spent[_WARM_RUNS:]))


Timed = tuple[LayerPrecision, float | None]


def joined(layers: Sequence[LayerPrecision], times: Sequence[LayerTime]) -> list[Timed]:
    """Return each layer that computes, moves or takes time, with its time.

    By name; and where the engine numbers its own layers anew each time, in the order of those that
    differ only in the number. A time without a layer that tells its precision keeps its own row.
    """
    if not times:
        return [(layer, None) for layer in layers if layer.computes]
    exact, alike = defaultdict(list), defaultdict(list)
    for layer in layers:
        exact[layer.name].append(layer)
        alike[_COUNTER.sub("", layer.name)].append(layer)
    known = {time.name for time in times}
    found: list[Timed] = []
    for time in times:
        same = exact[time.name]
        if not same and time.ms > 0:
            same = [x for x in alike[_COUNTER.sub("", time.name)] if x.name not in known]
        layer = same.pop(0) if same else LayerPrecision(time.name, time.op, "")
        if not exact[time.name]:
            _drop(alike[_COUNTER.sub("", time.name)], layer)
        if time.ms > 0 or layer.precision:
            found.append((layer, time.ms))
    return found


def _drop(layers: list[LayerPrecision], layer: LayerPrecision) -> None:
    if layer in layers:
        layers.remove(layer)


def _rows(timed: Sequence[Timed], traffic: Traffic, bounds: Roofline) -> list[LayerProfile]:
    """Return one row a layer; each step's bound goes to the layer that computes its product."""
    layers = [layer for layer, _ in timed]
    nodes = _with_fused(matched(layers, traffic), traffic)
    total = sum(ms or 0.0 for _, ms in timed)
    by_name = {bound.name: bound for bound in bounds.layers}
    rows = []
    for (layer, ms), names in zip(timed, nodes, strict=True):
        own = [by_name.pop(name) for name in names if name in by_name]
        share = (ms or 0.0) / total if total else 0.0
        rows.append(_row(layer, names, ms, share, own))
    return rows


def _row(
    layer: LayerPrecision,
    nodes: tuple[str, ...],
    ms: float | None,
    share: float,
    bounds: Sequence[LayerBound],
) -> LayerProfile:
    return LayerProfile(
        name=layer.name,
        op=layer.op,
        nodes=nodes,
        precision=layer.precision,
        shape=layer.shape,
        ms=ms,
        share=share,
        macs=sum(bound.macs for bound in bounds),
        bytes=sum(bound.bytes for bound in bounds),
        bound_ms=sum(bound.bound_ms for bound in bounds),
    )


def _with_fused(nodes: Sequence[tuple[str, ...]], traffic: Traffic) -> list[tuple[str, ...]]:
    """Add to the layer of each step the nodes that no layer has: they were fused into it."""
    taken = {name for names in nodes for name in names}
    steps = {step.name: step for step in traffic.steps}
    found = []
    for names in nodes:
        fused = [
            node
            for name in names if name in steps
            for node in steps[name].nodes if node not in taken
        ]  # fmt: skip
        found.append((*names, *fused))
    return found
