"""The layers of a graph, each with the precision that every engine runs it in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fettle.core.arrays import Arrays
from fettle.core.errors import ModelError
from fettle.measure import matched, precisions_of, shapes_of, traffic_of
from fettle.runtimes import LayerPrecision

Told = Mapping[str, Sequence[LayerPrecision]]


@dataclass(frozen=True)
class Layer:
    """One layer of the graph: `quantized` says whether the graph reads it out of integers.

    `shape` is of its output, as an engine tells it; empty where none does.
    """

    name: str
    op: str
    shape: tuple[int, ...]
    precision: dict[str, str]
    macs: int = 0
    quantized: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {**asdict(self), "shape": list(self.shape)}


def layers_of(path: Path, inputs: Arrays, told: Told) -> list[Layer]:
    """Return the graph's layers in order; where shapes can't be known, the engines' own."""
    try:
        traffic = traffic_of(path, shapes_of(path, inputs))
    except ModelError:
        return [
            Layer(x.name, x.op, x.shape, {engine: x.precision})
            for engine, layers in told.items()
            for x in layers
        ]
    shapes: dict[str, tuple[int, ...]] = {}
    for layers in told.values():
        for layer, nodes in zip(layers, matched(layers, traffic), strict=True):
            for node in nodes if layer.shape else ():
                shapes.setdefault(node, layer.shape)
    by_engine = {engine: precisions_of(traffic, layers) for engine, layers in told.items()}
    return [
        Layer(
            step.name,
            step.op,
            shapes.get(step.name, ()),
            {engine: found[i] for engine, found in by_engine.items()},
            step.macs,
            step.quantized,
        )
        for i, step in enumerate(traffic.steps)
    ]
