"""What TensorRT builds but computes in floating point, though the graph says integers."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from fettle.graph._tensorrt_reading import (
    WEIGHTED,
    Operand,
    Rule,
    is_constant,
    label,
    nodes,
    operand,
    rank_of,
)

Found = Iterator[tuple[str, str]]


def _operands(model: ir.Model, *operators: str) -> Iterator[tuple[ir.Node, list[Operand | None]]]:
    """Yield each node that multiplies, and how its two operands are quantized, if they are."""
    for node in nodes(model, *operators):
        yield node, [operand(value) for value in node.inputs[:2]]


def _channels_of_activations(model: ir.Model) -> Found:
    for node in nodes(model, "QuantizeLinear"):
        scale = node.inputs[1]
        several = scale is not None and scale.shape is not None and scale.shape != (1,)
        if several and rank_of(scale) and not is_constant(node.inputs[0]):
            yield label(node), "an activation with a scale for each channel"


def _convolution_axes(model: ir.Model) -> Found:
    for node, (_, weight) in _operands(model, "Conv"):
        if weight is not None and weight.axis not in (None, 0):
            yield label(node), f"weight scales along axis {weight.axis}"


def _product_axes(model: ir.Model) -> Found:
    for node, pair in _operands(model, "MatMul", "Gemm"):
        for place, found in enumerate(pair):
            axis = found.axis if found is not None and found.weight else None
            if axis is not None and axis == _summed(node, place):
                yield label(node), f"weight scales along axis {axis}, which is summed"


def _summed(node: ir.Node, place: int) -> int | None:
    """Return the axis of an operand that the product sums over."""
    rank = rank_of(node.inputs[place])
    if rank is None:
        return None
    flipped = "transB" if place else "transA"
    transposed = flipped in node.attributes and node.attributes[flipped].as_int()
    return rank - 1 if bool(place) == bool(transposed) else rank - 2


def _one_sided(model: ir.Model) -> Found:
    for node, pair in _operands(model, *WEIGHTED):
        if (pair[0] is None) == (pair[1] is None):
            continue
        quantized = pair[0] or pair[1]
        assert quantized is not None
        kind = "weight" if quantized.weight else "activation"
        yield label(node), f"only one operand is quantized, the {kind}"


def _transposed_convolutions(model: ir.Model) -> Found:
    for node, (data, weight) in _operands(model, "ConvTranspose"):
        if data is not None and weight is not None:
            yield label(node), "a quantized ConvTranspose"


RULES = (
    Rule(
        "per-channel-activations",
        "float",
        "give activations one scale (nncf: QuantizationParameters(per_channel=False))",
        _channels_of_activations,
    ),
    Rule(
        "convolution-axis",
        "float",
        "put the scales of a convolution's weight along axis 0, its output channels",
        _convolution_axes,
    ),
    Rule(
        "product-axis",
        "float",
        "put the scales of a matrix along its output features, not along what is summed",
        _product_axes,
    ),
    Rule(
        "one-sided",
        "float",
        "quantize both operands with `graph.static_int8`, or keep it as a smaller file only",
        _one_sided,
    ),
    Rule(
        "transposed-convolution",
        "float",
        "leave it out of quantization, so that nothing is rounded in vain",
        _transposed_convolutions,
    ),
)
