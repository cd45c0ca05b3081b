"""Streaming over calibration data: extremes and a histogram of each tensor, batch by batch.

The reductions are operators in the graph that runs, so that whole activations never leave the
engine: of each tensor come its minimum, its maximum and a bounded sample, every k-th value. k is 1
more than a multiple of 30, so that a layout of 2ⁿ, 3ⁿ or 5ⁿ channels is sampled in all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import onnx_ir as ir

from fettle.core.arrays import Arrays
from fettle.core.errors import DataError, ModelError
from fettle.core.progress import Bar
from fettle.graph._constants import add_constant
from fettle.graph._execute import Probe
from fettle.graph._histogram import Histogram

_STRIDE = 30
_SAMPLE = 4096  # at least so many values of a tensor and batch, at most _STRIDE times as many
_KINDS = ("low", "high", "sample")


def histograms(
    model: ir.Model, names: Iterable[str], batches: Iterator[Arrays], sampled: bool, bar: Bar
) -> dict[str, Histogram]:
    """Return what was seen of each named tensor of `model` over all `batches`.

    Args:
        model: left as it is.
        names: of float tensors in the graph itself.
        batches: inputs, batch first.
        sampled: whether counts are wanted, or the extremes alone.
        bar: is stepped by examples.

    Raises:
        DataError: there is no data, or not what the model takes.
        ModelError: onnxruntime refuses the model, or a tensor becomes NaN or infinite.
    """
    names = list(names)
    kinds = _KINDS if sampled else _KINDS[:2]
    watched = _watching(model, names, sampled)
    probe = Probe(watched, [f"{name}_{kind}" for name in names for kind in kinds])
    found = {name: Histogram() for name in names}
    for values in probe.over(_counted(batches, bar)):
        for name, histogram in found.items():
            _note(histogram, name, *(values[f"{name}_{kind}"] for kind in kinds))
    if names and found[names[0]].low > found[names[0]].high:
        raise DataError(
            "the calibration split holds no batch of the size that the model takes;"
            " give it more examples"
        )
    return found


def _counted(batches: Iterator[Arrays], bar: Bar) -> Iterator[Arrays]:
    for batch in batches:
        yield batch
        bar.step(amount=len(next(iter(batch.values()))))


def _note(
    histogram: Histogram,
    name: str,
    low: np.ndarray,
    high: np.ndarray,
    sample: np.ndarray | None = None,
) -> None:
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ModelError(
            f"the tensor `{name}` becomes NaN or infinite on the calibration data, so it has no"
            " range; mend the model, or leave out the examples that cause it"
        )
    histogram.extend(float(low), float(high))
    if sample is not None:
        histogram.add(sample)


def _watching(model: ir.Model, names: list[str], sampled: bool) -> ir.Model:
    """Return a copy of the model that also computes `NAME_low`, `NAME_high`, `NAME_sample`."""
    copied = model.clone()
    graph = copied.graph
    values = {v.name: v for v in (*graph.inputs, *(v for n in graph for v in n.outputs))}
    constants = {
        key: add_constant(graph, f"calibration_{key}", np.array([number], np.int64))
        for key, number in {
            "flat": -1,
            "start": 0,
            "end": np.iinfo(np.int64).max,
            "least": _STRIDE * _SAMPLE,
            "stride": _STRIDE,
            "one": 1,
        }.items()
    }
    for name in names:
        for kind, op in (("low", "ReduceMin"), ("high", "ReduceMax")):
            _append(graph, op, [values[name]], f"{name}_{kind}", keepdims=0)
        if sampled:
            _append_sample(graph, values[name], constants)
    return copied


def _append_sample(graph: ir.Graph, value: ir.Value, constants: dict[str, ir.Value]) -> None:
    """Append every k-th value, where k = stride · ⌊size / least⌋ + 1."""
    name = f"{value.name}_sample"
    size = _append(graph, "Size", [value], f"{name}_size")
    times = _append(graph, "Div", [size, constants["least"]], f"{name}_times")
    product = _append(graph, "Mul", [times, constants["stride"]], f"{name}_product")
    step = _append(graph, "Add", [product, constants["one"]], f"{name}_step")
    flat = _append(graph, "Reshape", [value, constants["flat"]], f"{name}_flat")
    ends = [constants["start"], constants["end"], constants["start"], step]
    _append(graph, "Slice", [flat, *ends], name)


def _append(
    graph: ir.Graph, op: str, inputs: list[ir.Value], name: str, **attributes: int
) -> ir.Value:
    node = ir.node(op, inputs, attributes or None, name=name)
    node.outputs[0].name = name
    graph.append(node)
    return node.outputs[0]
