"""Streaming over calibration data: extremes and a histogram of each tensor, batch by batch.

The reductions are operators in the graph that runs, so that whole activations never leave the
engine: of each tensor come its minimum, its maximum and a bounded sample, every k-th value. k is 1
more than a multiple of 30, so that a layout of 2ⁿ, 3ⁿ or 5ⁿ channels is sampled in all of them. A
tensor that can't be negative has 0 for its minimum.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import onnx_ir as ir

from fettle.core.arrays import Arrays
from fettle.core.errors import DataError, ModelError
from fettle.core.progress import Bar
from fettle.graph._constants import add_constant
from fettle.graph._execute import Probe
from fettle.graph._histogram import Histogram
from fettle.graph._ranges import non_negative_values

_STRIDE = 30
_SAMPLE = 4096  # at least so many values of a tensor and batch, at most _STRIDE times as many
_CONSTANTS = {
    "flat": -1,
    "start": 0,
    "end": np.iinfo(np.int64).max,
    "least": _STRIDE * _SAMPLE,
    "stride": _STRIDE,
    "one": 1,
}


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
    positive = {value.name for value in non_negative_values(model.graph)}
    kinds = {name: _kinds(name in positive, sampled) for name in names}
    watched = _watching(model, kinds)
    probe = Probe(watched, [f"{name}_{kind}" for name in kinds for kind in kinds[name]])
    found = {name: Histogram() for name in kinds}
    for values in probe.over(_counted(batches, bar)):
        for name, histogram in found.items():
            _note(histogram, name, {kind: values[f"{name}_{kind}"] for kind in kinds[name]})
    if any(histogram.low > histogram.high for histogram in found.values()):
        raise DataError(
            "the calibration split holds no batch of the size that the model takes;"
            " give it more examples"
        )
    return found


def _counted(batches: Iterator[Arrays], bar: Bar) -> Iterator[Arrays]:
    for batch in batches:
        yield batch
        bar.step(amount=len(next(iter(batch.values()))))


def _kinds(positive: bool, sampled: bool) -> tuple[str, ...]:
    low, sample = () if positive else ("low",), ("sample",) if sampled else ()
    return (*low, "high", *sample)


def _note(histogram: Histogram, name: str, seen: dict[str, np.ndarray]) -> None:
    low, high = (float(seen.get(kind, np.zeros(()))) for kind in ("low", "high"))
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ModelError(
            f"the tensor `{name}` becomes NaN or infinite on the calibration data, so it has no"
            " range; mend the model, or leave out the examples that cause it"
        )
    histogram.extend(low, high)
    if "sample" in seen:
        histogram.add(seen["sample"])


def _watching(model: ir.Model, kinds: Mapping[str, Iterable[str]]) -> ir.Model:
    """Return a copy of the model that also computes what `kinds` says: NAME_low, NAME_high, …."""
    copied = model.clone()
    graph = copied.graph
    values = {v.name: v for v in (*graph.inputs, *(v for n in graph for v in n.outputs))}
    constants = {
        key: add_constant(graph, f"calibration_{key}", np.array([number], np.int64))
        for key, number in _CONSTANTS.items()
    }
    for name, wanted in kinds.items():
        for kind in wanted:
            if kind == "sample":
                _append_sample(graph, values[name], constants)
            else:
                op = "ReduceMin" if kind == "low" else "ReduceMax"
                _append(graph, op, [values[name]], f"{name}_{kind}", keepdims=0)
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
