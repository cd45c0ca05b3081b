"""Writing quantization into a graph: QuantizeLinear, DequantizeLinear and int8 weights.

q = saturate(round(x / scale) + zero point), ties to even; x ≈ (q − zero point) · scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from fettle.graph._constants import add_constant
from fettle.graph._placement import Edge, Placement
from fettle.graph._quantized import constant_of

_SMALLEST = float(np.finfo(np.float32).tiny) * 2**24  # products of two scales stay normal
_BIAS_LEVELS = 2.0**30


@dataclass(frozen=True)
class Grid:
    """The integers of a tensor: scale and zero point; the zero point's type is the integers'."""

    scale: np.float32
    zero_point: np.integer

    @classmethod
    def symmetric(cls, top: float) -> Grid:
        """Return the int8 grid from −top to top; that of ±1 when nothing but zero was seen."""
        return cls(np.float32(max(top or 1.0, _SMALLEST * 127) / 127), np.int8(0))

    @classmethod
    def asymmetric(cls, low: float, high: float) -> Grid:
        """Return the uint8 grid from low ≤ 0 to high ≥ 0."""
        if low == high:
            return cls(np.float32(1 / 127), np.uint8(128))
        scale = np.float32(max((high - low) / 255, _SMALLEST))
        return cls(scale, np.uint8(np.clip(np.rint(-low / scale), 0, 255)))


def insert(
    graph: ir.Graph, placement: Placement, grids: Mapping[ir.Value, Grid], weight_bits: int
) -> None:
    """Quantize in place what `placement` names.

    Args:
        graph: prepared.
        placement: where.
        grids: for each group of tensors (`placement.group`), its integers.
        weight_bits: 8 for −127 … 127, 7 for −63 … 63.
    """
    numbers = {root: _hold_grid(graph, root, grid) for root, grid in grids.items()}
    for value, edges in placement.edges.items():
        _insert_pair(graph, value, edges, numbers[placement.group(value)])
    made: dict[tuple[ir.Value, int, bytes], ir.Value] = {}
    for node, axis in placement.layers.items():
        assert node.inputs[0] is not None
        source = _source(node.inputs[0])
        step = float(grids[placement.group(source)].scale)
        _quantize_weight(graph, node, axis, _Weights(step, 2 ** (weight_bits - 1) - 1, made))


@dataclass(frozen=True)
class _Weights:
    step: float  # scale of the layer's input
    largest: int
    made: dict[tuple[ir.Value, int, bytes], ir.Value]


def _source(dequantized: ir.Value) -> ir.Value:
    """Return the float tensor behind a DequantizeLinear of a QuantizeLinear."""
    dequantize = dequantized.producer()
    assert dequantize is not None
    assert dequantize.inputs[0] is not None
    quantize = dequantize.inputs[0].producer()
    assert quantize is not None
    assert quantize.inputs[0] is not None
    return quantize.inputs[0]


def _hold_grid(graph: ir.Graph, root: ir.Value, grid: Grid) -> list[ir.Value]:
    arrays = {"scale": np.asarray(grid.scale), "zero_point": np.asarray(grid.zero_point)}
    return [add_constant(graph, f"{root.name}_{key}", array) for key, array in arrays.items()]


def _insert_pair(
    graph: ir.Graph, value: ir.Value, edges: set[Edge], numbers: list[ir.Value]
) -> None:
    quantize = ir.node("QuantizeLinear", [value, *numbers], name=f"{value.name}_quantize")
    quantize.outputs[0].name = f"{value.name}_quantized"
    quantize.outputs[0].type, quantize.outputs[0].shape = numbers[1].type, value.shape
    dequantize = ir.node(
        "DequantizeLinear", [quantize.outputs[0], *numbers], name=f"{value.name}_dequantize"
    )
    dequantize.outputs[0].name = f"{value.name}_dequantized"
    dequantize.outputs[0].dtype, dequantize.outputs[0].shape = ir.DataType.FLOAT, value.shape
    producer = value.producer()
    if producer is None:
        graph.insert_before(graph[0], [quantize, dequantize])
    else:
        graph.insert_after(producer, [quantize, dequantize])
    for node, index in edges:
        node.replace_input_with(index, dequantize.outputs[0])


def _quantize_weight(graph: ir.Graph, node: ir.Node, axis: int, how: _Weights) -> None:
    value = node.inputs[1]
    weight, bias = constant_of(value), _bias_of(node)
    assert value is not None
    assert weight is not None
    scale = channel_scales(weight, axis, how.largest)
    if bias is not None and bias.size in (1, scale.size) and node.op_type != "ConvTranspose":
        least = np.abs(bias.reshape(-1).astype(np.float64)) / (how.step * _BIAS_LEVELS)
        scale = np.maximum(scale, least).astype(np.float32)
    key = (value, axis, scale.tobytes())
    if key not in how.made:
        how.made[key] = _hold_weight(graph, node, (weight, scale, axis), how.largest)
    node.replace_input_with(1, how.made[key])


def _bias_of(node: ir.Node) -> np.ndarray | None:
    return constant_of(node.inputs[2]) if len(node.inputs) > 2 else None


def channel_scales(weight: np.ndarray, axis: int, largest: int) -> np.ndarray:
    """Return one scale for each index along `axis`, float32; 1 where all weights are zero."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    tops = np.abs(weight.astype(np.float64)).max(axis=others)
    scales = np.maximum(tops / largest, _SMALLEST)
    return np.where(tops == 0, 1.0, scales).astype(np.float32)


def quantize_weight(
    weight: np.ndarray, scale: np.ndarray, axis: int, largest: int = 127
) -> np.ndarray:
    """Return the int8 numbers of a weight: round(w / scale), ties to even, within ±largest."""
    shape = [-1 if i == axis else 1 for i in range(weight.ndim)]
    steps = weight.astype(np.float64) / scale.astype(np.float64).reshape(shape)
    return np.clip(np.rint(steps), -largest, largest).astype(np.int8)


def _hold_weight(
    graph: ir.Graph, node: ir.Node, parts: tuple[np.ndarray, np.ndarray, int], largest: int
) -> ir.Value:
    weight, scale, axis = parts
    name = _free_name(graph, f"{node.inputs[1].name}" if node.inputs[1] is not None else "weight")
    inputs = [
        add_constant(graph, f"{name}_quantized", quantize_weight(weight, scale, axis, largest)),
        add_constant(graph, f"{name}_scale", scale),
        add_constant(graph, f"{name}_zero_point", np.zeros(scale.shape, np.int8)),
    ]
    dequantize = ir.node("DequantizeLinear", inputs, {"axis": axis}, name=f"{name}_dequantize")
    output = dequantize.outputs[0]
    output.name, output.dtype = f"{name}_dequantized", ir.DataType.FLOAT
    output.shape = ir.Shape(weight.shape)
    graph.insert_before(graph[0], dequantize)
    return output


def _free_name(graph: ir.Graph, name: str) -> str:
    """Return `name`, or with a number where the graph has its quantized form already."""
    found, number = name, 1
    while f"{found}_quantized" in graph.initializers:
        number += 1
        found = f"{name}_{number}"
    return found
