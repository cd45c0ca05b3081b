"""The second moment E[x·xᵀ] of what each output of a layer sees, streamed over calibration data.

For a convolution x is a patch: the inputs of one group under the kernel at one position. Positions
are sampled, for neighbouring patches say nearly the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from fettle.core.arrays import Arrays, rows
from fettle.core.errors import DataError, ModelError
from fettle.graph._execute import Probe
from fettle.graph._layers import Layer

_POSITIONS = 32  # of an example, at most
_AT_ONCE = 8  # examples: the inputs of many layers are held at a time


def second_moments(
    model: ir.Model, found: Sequence[Layer], batches: Iterator[Arrays], seed: int
) -> list[np.ndarray]:
    """Return E[x·xᵀ] of each layer, float32 (groups, columns, columns); columns are inputs × taps.

    Raises:
        DataError: there is no batch of the size that the model takes.
        ModelError: onnxruntime refuses the model, or a tensor becomes NaN or infinite.
    """
    # one generator a layer: what is drawn doesn't depend on which layers are measured together
    generators = [np.random.default_rng([seed, *layer.key.encode()]) for layer in found]
    probe = Probe(*_watching(model, found))
    sums: list[np.ndarray | float] = [0.0] * len(found)
    counts = [0] * len(found)
    for values in probe.over(_small(batches)):
        for i, layer in enumerate(found):
            x = columns(layer, values[_watched(layer)], generators[i])
            sums[i] = sums[i] + x.swapaxes(1, 2) @ x
            counts[i] += x.shape[1]
    return [_mean(*each) for each in zip(found, sums, counts, strict=True)]


def columns(layer: Layer, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return what outputs of `layer` see of its input `x`: (groups, samples, inputs × taps).

    Args:
        layer: a Conv, Gemm or MatMul.
        x: its input, (examples, channels, …) for a Conv, else (…, channels).
        rng: chooses positions, the same for all examples.
    """
    if not layer.convolves:
        flat = x.reshape(-1, x.shape[-1])
        most = _POSITIONS * len(x)
        return flat[None] if len(flat) <= most else rng.choice(flat, most, replace=False)[None]
    kernel = layer.weight.shape[2:]
    strides, dilations = (_ints(layer.node, key, len(kernel)) for key in ("strides", "dilations"))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    padded = np.pad(x, [(0, 0), (0, 0), *_padding(layer.node, x.shape[2:], reach, strides)])
    sizes = [(n - r) // s + 1 for n, r, s in zip(padded.shape[2:], reach, strides, strict=True)]
    places = _places(sizes, rng)
    taps = [
        padded[
            (
                slice(None),
                slice(None),
                *(
                    p * s + t * d
                    for p, s, t, d in zip(places, strides, tap, dilations, strict=True)
                ),
            )
        ]
        for tap in np.ndindex(*kernel)
    ]  # each (examples, channels, positions)
    seen = np.stack(taps, axis=-1)
    examples, channels, positions, count = seen.shape
    grouped = seen.reshape(examples, layer.groups, channels // layer.groups, positions, count)
    return np.ascontiguousarray(grouped.transpose(1, 0, 3, 2, 4)).reshape(
        layer.groups, examples * positions, -1
    )


def _places(sizes: list[int], rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Return the coordinates of some output positions, drawn without repetition."""
    total = int(np.prod(sizes))
    picked = rng.choice(total, min(total, _POSITIONS), replace=False)
    return np.unravel_index(picked, sizes)


def _padding(
    node: ir.Node, sizes: Sequence[int], reach: list[int], strides: list[int]
) -> list[tuple[int, int]]:
    """Return the zeros before and after each spatial axis."""
    way = node.attributes["auto_pad"].as_string() if "auto_pad" in node.attributes else "NOTSET"
    if way in ("NOTSET", "VALID"):
        pads = (
            [int(p) for p in node.attributes["pads"].as_ints()] if "pads" in node.attributes else []
        )
        pads = pads if way == "NOTSET" and pads else [0] * 2 * len(sizes)
        return list(zip(pads[: len(sizes)], pads[len(sizes) :], strict=True))
    found = []
    for n, r, s in zip(sizes, reach, strides, strict=True):
        total = max((-(-n // s) - 1) * s + r - n, 0)
        small, large = total // 2, total - total // 2
        found.append((small, large) if way == "SAME_UPPER" else (large, small))
    return found


def _ints(node: ir.Node, name: str, count: int) -> list[int]:
    return (
        [int(i) for i in node.attributes[name].as_ints()]
        if name in node.attributes
        else [1] * count
    )


def _watched(layer: Layer) -> str:
    value = layer.node.inputs[0]
    assert value is not None
    return f"{value.name}_watched"


def _watching(model: ir.Model, found: Sequence[Layer]) -> tuple[ir.Model, list[str]]:
    """Return a copy of the model that also gives the layers' inputs, under names of their own."""
    copied = model.clone()
    graph = copied.graph
    values = {v.name: v for v in (*graph.inputs, *(v for node in graph for v in node.outputs))}
    names = list(dict.fromkeys(_watched(layer) for layer in found))
    for name in names:
        node = ir.node("Identity", [values[name.removesuffix("_watched")]], name=name)
        node.outputs[0].name = name
        graph.append(node)
    return copied, names


def _small(batches: Iterator[Arrays]) -> Iterator[Arrays]:
    for batch in batches:
        for start in range(0, len(next(iter(batch.values()))), _AT_ONCE):
            yield rows(batch, start, start + _AT_ONCE)


def _mean(layer: Layer, total: np.ndarray | float, count: int) -> np.ndarray:
    if not isinstance(total, np.ndarray):
        raise DataError(
            "adaptive rounding needs calibration examples, and got no batch of the size that the"
            " model takes; give the calibration split more of them"
        )
    if not np.isfinite(total).all():
        raise ModelError(
            f"the input of `{layer.key}` becomes NaN or infinite on the calibration data, so its"
            " weight can't be rounded to it; mend the model, or leave out the examples that cause"
            " it"
        )
    mean: np.ndarray = (total / np.float32(count)).astype(np.float32)
    return mean
