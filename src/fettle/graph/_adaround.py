"""Adaptive rounding: each weight up or down, so that the layer's output changes least.

For a layer y = W·x with ŵ = s·q and e = q − w/s, E‖Ŵx − Wx‖² = Σ_rows s² · e · E[x·xᵀ] · eᵀ: a
quadratic problem over up or down, which AdaRound relaxes and solves by gradient descent. Here it is
solved by coordinate descent from rounding to nearest: weight after weight is turned the other way
when that makes the sum smaller, until none does. No step makes it worse, it takes no learning rate
and no annealing, and all it needs of the data is the second moment E[x·xᵀ] of each layer's input,
so that memory doesn't grow with the number of examples.

Papers: Nagel et al. 2020 (arXiv 2004.10568), the problem, equation 13; Frantar et al. 2023
(arXiv 2210.17323), the second moments and the columns in blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from fettle.core.arrays import Arrays
from fettle.graph._layers import Layer, alone, pairs, put, scales_of
from fettle.graph._moments import second_moments
from fettle.graph._quantized import constant_of

_BUDGET = 512 * 2**20  # bytes of second moments that are held at a time
_DAMPING = 0.01  # of the mean of the diagonal: what few examples can't tell
_BLOCK = 128
_SWEEPS = 20
_ENOUGH = 1e-3  # share of weights; when fewer turn in a sweep, the descent ends
_STEP = 1e-6  # gains below this, relative to the diagonal, are rounding errors


def round_adaptively(
    quantized: ir.Model,
    original: ir.Model,
    batches: Callable[[], Iterator[Arrays]],
    seed: int,
) -> None:
    """Round the weights of Conv, Gemm and MatMul in `quantized` up or down anew, in place.

    Scales and zero points stay. Layers that share a weight, whose scale varies within an output
    channel, and ConvTranspose stay as they are.

    Args:
        quantized: QDQ graph made from `original`; a layer keeps its name.
        original: the float graph, left as it is.
        batches: gives the calibration inputs, anew at each call.
        seed: of the positions that are sampled in images.

    Raises:
        ModelError: the models don't belong together, or a tensor becomes NaN or infinite.
        DataError: there is no batch of the size that the model takes.
    """
    found = (_rounding(*pair) for pair in pairs(quantized.graph, original.graph))
    jobs = [job for job in found if job is not None]
    for part in _parts(jobs):
        moments = second_moments(original, [job.original for job in part], batches(), seed)
        for job, moment in zip(part, moments, strict=True):
            job.write(quantized.graph, descend(job.wanted, job.numbers, moment, job.bounds))


@dataclass(frozen=True)
class _Rounding:
    """A layer's weight in units of its scale, and its integers; (groups, outputs, columns)."""

    layer: Layer
    original: Layer
    wanted: np.ndarray
    numbers: np.ndarray

    @property
    def bounds(self) -> tuple[int, int]:
        """The integers that the quantizer allows itself, as far as can be seen."""
        largest = int(np.abs(self.numbers).max())
        return -largest, largest

    @property
    def moment_bytes(self) -> int:
        """Size of the second moment of the input."""
        groups, _, columns = self.wanted.shape
        return int(groups * columns**2 * 4)

    def write(self, graph: ir.Graph, numbers: np.ndarray) -> None:
        """Write new integers into the graph."""
        dequantize = self.layer.node.inputs[1].producer()  # type: ignore[union-attr]
        assert dequantize is not None
        shape = self.layer.canonical(self.layer.weight).shape
        stored = self.layer.stored(numbers.reshape(shape))
        old = constant_of(dequantize.inputs[0])
        assert old is not None
        put(graph, dequantize, 0, stored.astype(old.dtype))


def _rounding(layer: Layer, original: Layer) -> _Rounding | None:
    dequantize = layer.node.inputs[1].producer()  # type: ignore[union-attr]
    if layer.node.op_type == "ConvTranspose" or dequantize is None:
        return None
    numbers = constant_of(dequantize.inputs[0])
    zero = constant_of(dequantize.inputs[2]) if len(dequantize.inputs) > 2 else None
    shared = not alone(dequantize.outputs[0]) or not alone(dequantize.inputs[0])
    if numbers is None or shared or (zero is not None and zero.any()):
        return None
    scale = layer.canonical(scales_of(dequantize))
    if (scale != scale[:, :, :1, :1]).any():
        return None
    wanted = layer.canonical(original.weight.astype(np.float64)) / scale
    rows = (*wanted.shape[:2], -1)
    return _Rounding(
        layer,
        original,
        wanted.reshape(rows).astype(np.float32),
        layer.canonical(numbers).reshape(rows).astype(np.float32),
    )


def _parts(jobs: list[_Rounding]) -> Iterator[list[_Rounding]]:
    """Yield the layers in parts whose second moments fit the budget together."""
    part: list[_Rounding] = []
    for job in jobs:
        if part and sum(other.moment_bytes for other in (*part, job)) > _BUDGET:
            yield part
            part = []
        part.append(job)
    if part:
        yield part


def descend(
    wanted: np.ndarray, numbers: np.ndarray, moment: np.ndarray, bounds: tuple[int, int]
) -> np.ndarray:
    """Return integers, each the floor or the ceiling of `wanted`, with the least e · H · eᵀ found.

    Args:
        wanted: weights in units of their scale, float32 (groups, outputs, columns).
        numbers: where to begin; what is neither floor nor ceiling begins at the nearest.
        moment: H, the second moment of the inputs, float32 (groups, columns, columns).
        bounds: least and largest integer.
    """
    low = np.clip(np.floor(wanted), *bounds)
    high = np.clip(np.floor(wanted) + 1, *bounds)
    begun = (numbers == low) | (numbers == high)
    chosen = np.where(begun, numbers, np.clip(np.rint(wanted), *bounds))
    moment = _damped(moment)
    gradient = (chosen - wanted) @ moment
    for _ in range(_SWEEPS):
        turned = sum(
            _sweep_block(chosen, (low, high), gradient, moment, start)
            for start in range(0, wanted.shape[2], _BLOCK)
        )
        if turned <= _ENOUGH * wanted.size:
            break
    return chosen


def _sweep_block(
    chosen: np.ndarray,
    ends: tuple[np.ndarray, np.ndarray],
    gradient: np.ndarray,
    moment: np.ndarray,
    start: int,
) -> int:
    """Turn what gains in one block of columns; `chosen` and `gradient` are kept up to date."""
    block = slice(start, start + _BLOCK)
    local = gradient[:, :, block].copy()
    square = np.ascontiguousarray(moment[:, block, block])
    turn = (ends[0] + ends[1] - 2 * chosen)[:, :, block]
    done = np.zeros_like(turn)
    for j in range(turn.shape[2]):
        step, weight = turn[:, :, j], square[:, None, j, j]
        gains = step * (2 * local[:, :, j] + step * weight) < -_STEP * weight
        done[:, :, j] = np.where(gains, step, 0)
        local += done[:, :, j, None] * square[:, None, j, :]
    chosen[:, :, block] += done
    gradient += done @ moment[:, block, :]
    return int(np.count_nonzero(done))


def _damped(moment: np.ndarray) -> np.ndarray:
    diagonal = np.einsum("gii->gi", moment)
    extra = _DAMPING * diagonal.mean(axis=1, keepdims=True)
    damped = moment.copy()
    np.einsum("gii->gi", damped)[...] += extra
    return damped
