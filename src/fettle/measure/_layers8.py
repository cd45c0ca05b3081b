"""Finding the layers of a graph whose products are of 8-bit numbers, and their operands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from fettle.measure._graph import constants

_OPERATORS = ("QLinearConv", "QLinearMatMul")
_CONTRIB = "com.microsoft"
# The engine quantizes and multiplies inside of one operator; its integers can't be reached.
CLOSED = ("DynamicQuantizeLSTM", "QAttention", "QGemm", "ConvInteger")


@dataclass(frozen=True)
class Layer8:
    """One layer of int8 weights.

    Attributes:
        at: index of its node in the graph.
        name: of the node, or of its output.
        op: the operator.
        x: name of the activations: of their integers, or of floats that the operator quantizes.
        zero: name of the zero point of `x`, or "".
        x_scale: name of the scale of `x`, or "" where the output is the int32 sum.
        y: name of the output.
        weight: int8; Conv: (out, in / group, *kernel), else (K, out).
        scale: of the weight, shape (out,) or (1,).
        settings: the node's attributes.
    """

    at: int
    name: str
    op: str
    x: str
    zero: str
    x_scale: str
    y: str
    weight: np.ndarray = field(repr=False)
    scale: np.ndarray = field(repr=False)
    settings: dict[str, Any]

    @property
    def operands(self) -> tuple[str, str, str]:
        """The names of the activations, their zero point and their scale."""
        return self.x, self.zero, self.x_scale

    @property
    def depthwise(self) -> bool:
        """Whether each channel makes one output: such layers are multiplied without pairs.

        With several outputs a channel onnxruntime takes the road of any other convolution.
        """
        return self.op == "Conv" and self.weight.shape[:2] == (self.settings.get("group", 1), 1)


def without_q_operators(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy in which QLinearConv and QLinearMatMul are layers between Q and DQ."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    held = {name: numpy_helper.to_array(tensor) for name, tensor in constants(model.graph)}
    every: list[onnx.NodeProto] = []
    for node in model.graph.node:
        every += _opened(node, held) if node.op_type in _OPERATORS else [node]
    if any(node.op_type in _OPERATORS for node in model.graph.node):
        domains = {opset.domain for opset in copy.opset_import}
        copy.opset_import.extend(
            [helper.make_opsetid(_CONTRIB, 1)] if _CONTRIB not in domains else []
        )
    del copy.graph.node[:]
    copy.graph.node.extend(every)
    return copy


def layers8(model: onnx.ModelProto) -> list[Layer8]:
    """Return the layers of int8 weights, in order."""
    held = dict(constants(model.graph))
    makers = {name: node for node in model.graph.node for name in node.output}
    found = (_layer(at, node, makers, held) for at, node in enumerate(model.graph.node))
    return [layer for layer in found if layer is not None]


def closed_layers(model: onnx.ModelProto) -> list[str]:
    """Return the names of 8-bit layers whose integers can't be reached."""
    return [node.name or node.output[0] for node in model.graph.node if node.op_type in CLOSED]


_Held = dict[str, onnx.TensorProto]
_Makers = dict[str, onnx.NodeProto]


def _layer(at: int, node: onnx.NodeProto, makers: _Makers, held: _Held) -> Layer8 | None:
    if node.op_type in ("Conv", "Gemm", "MatMul"):
        operands = _between(node, makers, held)
    else:
        operands = _integer(node, held)
    if operands is None:
        return None
    x, zero, x_scale, weight, scale = operands
    settings = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "Gemm" and settings.get("transB"):
        weight = weight.T
    outputs = weight.shape[0] if node.op_type == "Conv" else weight.shape[-1]
    plain = weight.ndim == 2 or node.op_type == "Conv"
    if not plain or weight.dtype != np.int8 or scale.size not in (1, outputs):
        return None  # by another axis or by blocks: no engine multiplies those in 8 bits
    name = node.name or node.output[0]
    return Layer8(at, name, node.op_type, x, zero, x_scale, node.output[0], weight,
                  scale.reshape(-1), settings)  # fmt: skip


_Operands = tuple[str, str, str, np.ndarray, np.ndarray]


def _between(node: onnx.NodeProto, makers: _Makers, held: _Held) -> _Operands | None:
    """Read a float layer whose operands come out of DequantizeLinear."""
    left, right = (makers.get(name) for name in node.input[:2])
    turned = right is not None and right.op_type == "Transpose"
    if turned and right is not None:
        right = makers.get(right.input[0])
    if left is None or right is None or {left.op_type, right.op_type} != {"DequantizeLinear"}:
        return None
    weight, scale = _constant(right.input[0], held), _constant(right.input[1], held)
    if weight is None or scale is None:
        return None
    x, x_scale, zero = _padded(left, 3)
    return x, zero, x_scale, weight.T if turned else weight, scale


def _integer(node: onnx.NodeProto, held: _Held) -> _Operands | None:
    """Read an operator that takes integers, or makes them itself."""
    if node.op_type == "MatMulInteger":
        x, weight, zero, _ = _padded(node, 4)
        x_scale, w_scale = "", ""
    elif node.op_type == "MatMulIntegerToFloat":
        x, weight, x_scale, w_scale, zero = _padded(node, 5)
    elif node.op_type == "DynamicQuantizeMatMul":
        x, weight, w_scale = _padded(node, 3)
        zero, x_scale = "", ""
    else:
        return None
    numbers, scale = _constant(weight, held), _constant(w_scale, held)
    if node.op_type == "MatMulInteger":
        scale = np.ones(1, np.float32)
    return None if numbers is None or scale is None else (x, zero, x_scale, numbers, scale)


def _padded(node: onnx.NodeProto, count: int) -> list[str]:
    return [*node.input, *[""] * count][:count]


def _constant(name: str, held: _Held) -> np.ndarray | None:
    return numpy_helper.to_array(held[name]) if name in held else None


def _opened(node: onnx.NodeProto, held: dict[str, np.ndarray]) -> Iterator[onnx.NodeProto]:
    """Write one QLinear operator as the nodes that define it."""
    name, axis = node.name or node.output[0], 0 if node.op_type == "QLinearConv" else 1
    made = [f"{name}_{part}" for part in ("left", "right", "sum")]
    yield helper.make_node("DequantizeLinear", node.input[0:3], [made[0]])
    # the standard operator knows no axis before operator set 13; onnxruntime's own always does
    yield helper.make_node(
        "DequantizeLinear", node.input[3:6], [made[1]], axis=axis, domain=_CONTRIB
    )
    operands = made[:2]
    if len(node.input) > 8 and node.input[8]:
        scale = held[node.input[1]] * held[node.input[4]]
        bias = held[node.input[8]] * np.broadcast_to(scale, held[node.input[8]].shape)
        tensor = numpy_helper.from_array(bias.astype(np.float32))
        operands.append(f"{name}_bias")
        yield helper.make_node("Constant", [], [operands[-1]], value=tensor)
    layer = helper.make_node(node.op_type.removeprefix("QLinear"), operands, [made[2]], name=name)
    layer.attribute.extend(node.attribute)
    yield layer
    yield helper.make_node("QuantizeLinear", [made[2], *node.input[6:8]], node.output)
