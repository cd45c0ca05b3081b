"""Layers with constant weights, seen alike whatever the operator's own layout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from fettle.core.errors import ModelError
from fettle.graph._constants import add_constant
from fettle.graph._dequantize import dequantized, spread
from fettle.graph._quantized import constant_of
from fettle.graph.fold_batch_norm import attribute_int

_CONVOLUTIONS = ("Conv", "ConvTranspose")
_PRODUCTS = ("Gemm", "MatMul")


@dataclass(frozen=True)
class Layer:
    """A Conv, ConvTranspose, Gemm or MatMul, and the float weight that its second input stands for.

    The canonical form of a weight is (groups, outputs, inputs, taps), where outputs and inputs are
    those of one group, and taps are the positions of the kernel: 1 for Gemm and MatMul.
    """

    node: ir.Node
    weight: np.ndarray

    @property
    def key(self) -> str:
        """What tells the layer from the others, in the float and in the quantized graph alike."""
        return self.node.name or str(self.node.outputs[0].name)

    @property
    def convolves(self) -> bool:
        """Whether channels are axis 1 of its input and output; else they are the last."""
        return self.node.op_type in _CONVOLUTIONS

    @property
    def groups(self) -> int:
        """How many parts of the channels are computed apart."""
        return attribute_int(self.node, "group", 1) if self.convolves else 1

    @property
    def outputs(self) -> int:
        """How many output channels there are, over all groups."""
        shape = self.canonical(self.weight).shape
        return int(shape[0] * shape[1])

    @property
    def inputs(self) -> int:
        """How many input channels there are, over all groups."""
        shape = self.canonical(self.weight).shape
        return int(shape[0] * shape[2])

    def canonical(self, array: np.ndarray) -> np.ndarray:
        """Return an array of the weight's shape in canonical form."""
        if self.node.op_type == "Conv":
            return array.reshape(self.groups, -1, array.shape[1], _taps(array))
        if self.node.op_type == "ConvTranspose":
            return array.reshape(self.groups, -1, array.shape[1], _taps(array)).swapaxes(1, 2)
        rows = array if attribute_int(self.node, "transB", 0) else array.T
        return rows[None, :, :, None]

    def stored(self, canonical: np.ndarray) -> np.ndarray:
        """Return a canonical array in the layout of the weight."""
        if self.node.op_type == "Conv":
            return canonical.reshape(self.weight.shape)
        if self.node.op_type == "ConvTranspose":
            return np.ascontiguousarray(canonical.swapaxes(1, 2)).reshape(self.weight.shape)
        rows = canonical[0, :, :, 0]
        return np.ascontiguousarray(rows if attribute_int(self.node, "transB", 0) else rows.T)


def layers(graph: ir.Graph) -> Iterator[Layer]:
    """Yield the layers of `graph`, in its order; those with quantized weights too."""
    for node in graph:
        found = layer_of(node)
        if found is not None:
            yield found


def layer_of(node: ir.Node) -> Layer | None:
    """Return `node` as a layer, or None when it is none or its weight isn't constant."""
    if node.domain or node.op_type not in (*_CONVOLUTIONS, *_PRODUCTS):
        return None
    weight = _held(node.inputs[1])
    if weight is None or weight.dtype.kind != "f":
        return None
    if node.op_type in _PRODUCTS and (weight.ndim != 2 or attribute_int(node, "transA", 0)):
        return None
    return Layer(node, weight)


def pairs(quantized: ir.Graph, original: ir.Graph) -> list[tuple[Layer, Layer]]:
    """Return the layers with quantized weights, each with the float layer of the same name.

    Raises:
        ModelError: there is no such pair, or the two have weights of different shapes.
    """
    floats = {layer.key: layer for layer in layers(original)}
    coded = [layer for layer in layers(quantized) if is_coded(layer)]
    found = [(layer, floats[layer.key]) for layer in coded if layer.key in floats]
    if not found:
        raise ModelError(
            "a quantized model and the float model that it was made from were expected, but no"
            f" layer of the one ({len(coded)} have quantized weights) has the name of one of the"
            f" other's {len(floats)}; give both as the quantizer left them"
        )
    for layer, other in found:
        if layer.weight.shape != other.weight.shape:
            raise ModelError(
                f"the layer `{layer.key}` has a weight of shape {list(layer.weight.shape)} in the"
                f" quantized model and {list(other.weight.shape)} in the float model; give the one"
                " that it was made from"
            )
    return found


def is_coded(layer: Layer) -> bool:
    """Say whether the weight stands behind a DequantizeLinear."""
    return constant_of(layer.node.inputs[1]) is None


def _taps(weight: np.ndarray) -> int:
    return int(np.prod(weight.shape[2:]))


def _held(value: ir.Value | None) -> np.ndarray | None:
    """Return the constant behind `value`, directly or through a DequantizeLinear without blocks."""
    node = value.producer() if value is not None else None
    if node is not None and node.op_type == "DequantizeLinear":
        return None if attribute_int(node, "block_size", 0) else dequantized(node)
    return constant_of(value)


def scales_of(node: ir.Node) -> np.ndarray:
    """Return the scale of each number that the DequantizeLinear `node` reads, float64."""
    numbers, scale = constant_of(node.inputs[0]), constant_of(node.inputs[1])
    assert numbers is not None
    assert scale is not None
    return np.broadcast_to(spread(scale.astype(np.float64), node, numbers), numbers.shape)


def row(bias: np.ndarray | None, channels: int) -> np.ndarray | None:
    """Return a bias as float64, one number a channel; None when it isn't one, or varies by row."""
    if bias is None or bias.size not in (1, channels) or bias.shape[-1:] not in ((), (bias.size,)):
        return None
    return np.broadcast_to(bias.astype(np.float64).reshape(-1), (channels,))


def alone(value: ir.Value | None) -> bool:
    """Say whether `value` has one reader, which may change it."""
    return value is not None and len(value.uses()) == 1 and not value.is_graph_output()


def put(graph: ir.Graph, node: ir.Node, index: int, array: np.ndarray) -> None:
    """Let input `index` of `node` be the constant `array`; other readers keep the old one."""
    value = node.inputs[index] if len(node.inputs) > index else None
    array = np.ascontiguousarray(array)
    if value is not None and value.is_initializer() and alone(value):
        value.const_value = ir.tensor(array, name=value.name)
        value.dtype, value.shape = ir.DataType.from_numpy(array.dtype), ir.Shape(array.shape)
        return
    if len(node.inputs) <= index:
        node.resize_inputs(index + 1)
    name = f"{node.outputs[0].name}_input_{index}"
    while name in graph.initializers:
        name += "_"
    node.replace_input_with(index, add_constant(graph, name, array))
