"""Emulating saturation at each stop of a walk, and adding up what was seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import onnx

from fettle.measure._layers8 import Layer8
from fettle.measure._pairs16 import Column, excess, image_columns, matrix_columns, work

_Values = dict[str, np.ndarray]


@dataclass
class Seen:
    """What was seen of one layer over all batches; `moved` and `power` are sums of squares."""

    op: str
    saturated: int = 0
    pairs: int = 0
    touched: int = 0
    sums: int = 0
    of: int = 0
    moved: float = 0.0
    power: float = 0.0


class Summing:
    """The visits of a walk: `look` keeps count, `cut` changes what the rest of the graph sees."""

    def __init__(self, layers: Sequence[Layer8], most: int) -> None:
        kept = [layer for layer in layers if not layer.depthwise]
        self.layers = {layer.y: layer for layer in kept}
        self.seen = {layer.name: Seen(layer.op) for layer in kept}
        self._most = most

    def look(self, node: onnx.NodeProto, values: _Values) -> None:
        """Count what would saturate; change nothing."""
        if node.output[0] in self.layers:
            layer = self.layers[node.output[0]]
            _Sum(layer, values, self._most).record(self.seen[layer.name])

    def cut(self, node: onnx.NodeProto, values: _Values) -> None:
        """Add to the layer's output what saturation takes off."""
        if node.output[0] in self.layers:
            layer = self.layers[node.output[0]]
            exact = values[layer.y]
            change = _Sum(layer, values, self._most).change()
            values[layer.y] = (exact + change).astype(exact.dtype)


class _Group(NamedTuple):
    """One product of matrices: `rows` sums of each of the columns of `weight`."""

    column: Column
    tops: np.ndarray
    weight: np.ndarray
    scale: np.ndarray
    rows: int


class _Sum:
    """The sums of one layer for one batch."""

    def __init__(self, layer: Layer8, values: _Values, most: int) -> None:
        self.layer, self.y, self.most = layer, values[layer.y], most
        self.u, self.zero, self.step = _activations(layer, values)

    def record(self, seen: Seen) -> None:
        """Add what is seen to the record, of a sample of the sums where there are too many."""
        for group in self._groups():
            rows, column = self._sample(group)
            found = excess(column, group.weight, group.tops, rows)
            seen.saturated += found.saturated
            seen.pairs += found.pairs
            seen.touched += int(np.count_nonzero(found.change))
            seen.sums += found.change.size
            seen.of += group.rows * len(found.change)
            # by float64: squares of int32 don't fit into int32
            squares = (found.change.astype(np.float64) ** 2).sum(axis=1)
            seen.moved += float((squares * group.scale**2).sum()) * (group.rows / rows)
        seen.power += float((self.y.astype(np.float64) ** 2).sum())

    def change(self) -> np.ndarray:
        """Return saturated less exact outputs, in the output's shape."""
        parts = [
            excess(g.column, g.weight, g.tops, g.rows).change * g.scale[:, None]
            for g in self._groups()
        ]
        change = np.concatenate(parts)  # (outputs, rows)
        if self.layer.op != "Conv":
            return change.T.reshape(self.y.shape)
        n, outputs, *space = self.y.shape
        return change.reshape(outputs, n, *space).swapaxes(0, 1)

    def _sample(self, group: _Group) -> tuple[int, Column]:
        """Return how many rows to look at, and their columns."""
        cost = work(group.weight, group.tops, group.rows)
        if cost <= self.most:
            return group.rows, group.column
        rows = max(1, group.rows * self.most // cost)
        picked = np.random.default_rng(0).choice(group.rows, rows, replace=False)
        return rows, lambda k: group.column(k)[picked]

    def _groups(self) -> list[_Group]:
        if self.layer.op == "Conv":
            return self._convolution()
        matrix = self.u.T if self.layer.settings.get("transA") else self.u
        matrix = matrix.reshape(-1, matrix.shape[-1])
        weight = self.layer.weight
        scale = self._scale(weight.shape[1])
        return [_Group(*matrix_columns(matrix), weight, scale, len(matrix))]

    def _convolution(self) -> list[_Group]:
        settings, weight = self.layer.settings, self.layer.weight
        kernel, axes = weight.shape[2:], weight.ndim - 2
        strides = settings.get("strides") or [1] * axes
        dilations = settings.get("dilations") or [1] * axes
        pads = _pads(settings, self.u.shape[2:], kernel, strides, dilations)
        x = np.pad(self.u, ((0, 0), (0, 0), *pads), constant_values=self.zero)
        rows = len(x) * int(np.prod(self.y.shape[2:]))
        groups = settings.get("group", 1)
        operands = (np.split(x, groups, 1), np.split(weight, groups),
                    np.split(self._scale(len(weight)), groups))  # fmt: skip
        found = []
        for part, w, scale in zip(*operands, strict=True):
            flat = np.moveaxis(w, 1, -1).reshape(len(w), -1).T  # (kernel · channels, outputs)
            columns = image_columns(part, kernel, strides, dilations)
            found.append(_Group(*columns, flat, scale, rows))
        return found

    def _scale(self, outputs: int) -> np.ndarray:
        """Return what one unit of each output's sum is worth."""
        return self.step * np.broadcast_to(self.layer.scale.astype(np.float64), outputs)


def _activations(layer: Layer8, values: _Values) -> tuple[np.ndarray, int, float]:
    """Return the unsigned activations, their zero point, and the factor to the output's unit."""
    x = values[layer.x]
    if x.dtype.kind == "f":
        return _quantized(x)
    step = float(np.ravel(values[layer.x_scale])[0]) if layer.x_scale else 1.0
    step *= layer.settings.get("alpha", 1.0)
    zero = int(np.ravel(values[layer.zero])[0]) if layer.zero else 0
    if x.dtype == np.int8:
        return (x.astype(np.int16) + 128).astype(np.uint8), zero + 128, step
    return x, zero, step


def _quantized(x: np.ndarray) -> tuple[np.ndarray, int, float]:
    """Quantize as DynamicQuantizeLinear does."""
    low, high = min(0.0, float(x.min())), max(0.0, float(x.max()))
    scale = np.float32((high - low) / 255) or np.float32(1)
    zero = int(np.clip(np.round(-low / scale), 0, 255))
    u = np.clip(np.round(x / scale) + zero, 0, 255).astype(np.uint8)
    return u, zero, float(scale)


def _pads(
    settings: dict[str, Any],
    space: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> list[tuple[int, int]]:
    """Return what is padded before and after along each axis of space."""
    auto = settings.get("auto_pad", b"NOTSET")
    if auto in (b"NOTSET", b"VALID"):
        given = settings.get("pads") if auto == b"NOTSET" else None
        pads = list(given) if isinstance(given, list | tuple) else [0] * 2 * len(space)
        return list(zip(pads[: len(space)], pads[len(space) :], strict=True))
    found = []
    for size, k, s, d in zip(space, kernel, strides, dilations, strict=True):
        total = max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
        small, large = total // 2, total - total // 2
        found.append((small, large) if auto == b"SAME_UPPER" else (large, small))
    return found
