"""Which groups of layers may be slower in INT8 than in floating point: suspects, to be tried.

Each engine tells what each layer takes; whatever runs between two weighted layers (conversions,
reorders, activations) is charged to the one before it. A contiguous group whose time in INT8
exceeds its time in float is a suspect. It is no more than that: turning a group back adds
conversions at its borders, so whether it helps is found out by timing the whole model.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fettle.runtimes import LayerTime

_WEIGHTED = re.compile(r"Conv(?!ert)|Gemm|MatMul|FullyConnected|GroupConvolution|Deconvolution")
LEAST_GAIN = 0.01  # of the whole time; less can't be told from noise


@dataclass(frozen=True)
class Layer:
    """A quantized layer of the master: the names of its node and of what it makes."""

    name: str
    output: str


def layers_of(model: Path) -> list[Layer]:
    """Return the quantized layers of an ONNX file, in order."""
    import onnx_ir as ir

    from fettle.graph import weighted_nodes

    nodes = weighted_nodes(ir.load(model).graph)
    return [Layer(str(node.name), str(node.outputs[0].name)) for node in nodes]


@dataclass(frozen=True)
class Suspect:
    """Layers `first` to `last` of the model, and what they lose in INT8 together."""

    first: int
    last: int
    loss_ms: float


def suspects(
    integer: Sequence[LayerTime], plain: Sequence[LayerTime], layers: Sequence[Layer], most: int = 2
) -> list[Suspect]:
    """Return the groups of layers that lose the most, the worst first.

    There are none where the engine doesn't tell its times, or runs other layers than the model has.

    Args:
        integer: each layer's time in the lowered INT8 session, in order.
        plain: the same with every layer in float.
        layers: the model's weighted ones, in order.
        most: how many groups at most.
    """
    charged = [_charged(times, layers) for times in (integer, plain)]
    if any(times is None for times in charged):
        return []
    slow, fast = (np.asarray(times) for times in charged)
    left, found = slow - fast, []
    for _ in range(most):
        group = _worst(left)
        if group is None or group.loss_ms < LEAST_GAIN * slow.sum():
            break
        found.append(group)
        left = left.copy()
        left[group.first : group.last + 1] = -np.inf
    return found


def _charged(times: Sequence[LayerTime], layers: Sequence[Layer]) -> np.ndarray | None:
    """Return the time charged to each layer, shape (layers,), or None when they don't match."""
    places = _places(times, layers)
    if places is None:
        return None
    totals = np.zeros(len(layers))
    place = places[min(places)] if places else 0  # what runs before any layer goes to the first
    for index, time in enumerate(times):
        place = places.get(index, place)
        totals[place] += time.ms
    return totals


def _places(times: Sequence[LayerTime], layers: Sequence[Layer]) -> dict[int, int] | None:
    """Return the number of the model's layer for each weighted layer of the engine.

    By name, where the engine keeps them, for it may run independent layers in another order than
    the model has, and products of two activations (attention) bear a layer's operator; else by
    order, where there are as many.
    """
    found = [i for i, time in enumerate(times) if _WEIGHTED.search(time.op)]
    by_name = {i: place for i in found if (place := _named(times[i].name, layers)) is not None}
    if sorted(by_name.values()) == list(range(len(layers))):
        return by_name
    if len(found) == len(layers):
        return {index: place for place, index in enumerate(found)}
    return None


def _named(name: str, layers: Sequence[Layer]) -> int | None:
    """Return the number of the layer that an engine's name begins with: the longest that fits.

    Engines call a layer after itself or its output, and append to that, but no digit: that would
    be another one's.
    """
    fits = [
        (len(own), number)
        for number, layer in enumerate(layers)
        for own in (layer.name, layer.output)
        if name.startswith(own) and not name[len(own) :][:1].isdigit()
    ]
    return max(fits)[1] if fits else None


def _worst(losses: np.ndarray) -> Suspect | None:
    """Return the contiguous group of the largest sum (Kadane), or None when no layer loses."""
    best, start, total = None, 0, 0.0
    for index, loss in enumerate(losses):
        if total <= 0:
            start, total = index, 0.0
        total += float(loss)
        if total > 0 and (best is None or total > best.loss_ms):
            best = Suspect(start, index, total)
    return best
