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

_WEIGHTED = re.compile(r"Conv|Gemm|MatMul|FullyConnected|GroupConvolution|Deconvolution")
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
    integer: Sequence[LayerTime], plain: Sequence[LayerTime], names: Sequence[str], most: int = 2
) -> list[Suspect]:
    """Return the groups of layers that lose the most, the worst first.

    There are none where the engine doesn't tell its times, or runs other layers than the model has.

    Args:
        integer: each layer's time in the lowered INT8 session, in order.
        plain: the same with every layer in float.
        names: what the model calls its weighted layers, in order.
        most: how many groups at most.
    """
    charged = [_charged(times, names) for times in (integer, plain)]
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


def _charged(times: Sequence[LayerTime], names: Sequence[str]) -> np.ndarray | None:
    """Return the time charged to each layer, shape (layers,), or None when they don't match."""
    totals, place = np.zeros(len(names)), -1
    by_name = _weighted(times, names)
    if len(by_name) != len(names):
        return None
    for index, time in enumerate(times):
        place += index in by_name
        totals[max(place, 0)] += time.ms
    return totals


def _weighted(times: Sequence[LayerTime], names: Sequence[str]) -> set[int]:
    """Return which of the engine's layers are the model's weighted ones.

    A product of two activations (attention) bears the same operator's name: where there are more
    products than layers, those count whose name begins with a layer's.
    """
    found = {i for i, time in enumerate(times) if _WEIGHTED.search(time.op)}
    if len(found) == len(names):
        return found
    starts = tuple(names)
    return {i for i in found if times[i].name.startswith(starts)}


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
