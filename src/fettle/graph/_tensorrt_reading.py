"""Reading a graph as TensorRT does: which operand is quantized, how, and along which axis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir
from onnx_ir.traversal import RecursiveGraphIterator

from fettle.graph._quantized import constant_of

Severity = Literal["rejected", "wrong", "float", "slower", "note"]
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_SHAPED = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
_PASSED_BY_INTEGERS = ("Identity", "Transpose", "MaxPool", "Slice", *_SHAPED)


@dataclass(frozen=True)
class Rule:
    """One rule of TensorRT.

    Attributes:
        name: what findings bear.
        severity: "rejected": parser or builder refuse; "wrong": it builds and computes other
            numbers; "float": it builds and computes in floating point; "slower": it runs in
            integers, with more work than is needed; "note": something that the build has to be
            told.
        mend: what to do.
        look: yields where the rule is broken, and what was found there.
    """

    name: str
    severity: Severity
    mend: str
    look: Callable[[ir.Model], Iterator[tuple[str, str]]]


@dataclass(frozen=True)
class Operand:
    """An input that is read through a DequantizeLinear.

    Attributes:
        node: the DequantizeLinear.
        weight: whether what it dequantizes is a constant.
        axis: axis of the scales, as the reader sees it; None for one scale, or where a reshape
            hides it.
    """

    node: ir.Node
    weight: bool
    axis: int | None

    @property
    def by_channel(self) -> bool:
        """Whether there is more than one scale."""
        return scales(self.node) > 1


def nodes(model: ir.Model, *operators: str) -> Iterator[ir.Node]:
    """Yield the nodes of these types, or all, subgraphs included."""
    for node in RecursiveGraphIterator(model.graph):
        if not operators or node.op_type in operators:
            yield node


def label(node: ir.Node) -> str:
    """Return a node's name, or what it makes where it has none."""
    return node.name or (node.outputs[0].name if node.outputs else None) or node.op_type


def is_constant(value: ir.Value | None) -> bool:
    """Say whether the value is an initializer or a Constant."""
    if value is None:
        return False
    producer = value.producer()
    return value.const_value is not None or (
        producer is not None and producer.op_type == "Constant"
    )


def integer_type(node: ir.Node) -> ir.DataType | None:
    """Return the type of the integers of a QuantizeLinear or DequantizeLinear."""
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    if zero is not None and zero.dtype is not None:
        return zero.dtype
    if node.op_type == "DequantizeLinear":
        return node.inputs[0].dtype if node.inputs[0] is not None else None
    given = node.attributes["output_dtype"].as_int() if "output_dtype" in node.attributes else 0
    return ir.DataType(given) if given else ir.DataType.UINT8  # ONNX's own default


def scales(node: ir.Node) -> int:
    """Return how many scales a quantizing node has; 1 where they are computed at run time."""
    scale = constant_of(node.inputs[1])
    return 1 if scale is None else int(scale.size)


def operand(value: ir.Value | None) -> Operand | None:
    """Return the DequantizeLinear behind `value`, looking through what only moves integers."""
    moves: list[ir.Node] = []
    node = value.producer() if value is not None else None
    while node is not None and node.op_type in _PASSED_BY_INTEGERS:
        moves.append(node)
        node = node.inputs[0].producer() if node.inputs[0] is not None else None
    if node is None or node.op_type != "DequantizeLinear":
        return None
    return Operand(node, _of_constant(node), _axis(node, moves[::-1]))


def quantizer(dequantize: ir.Node) -> ir.Node | None:
    """Return the QuantizeLinear that a DequantizeLinear undoes, None for integers of a file."""
    source = dequantize.inputs[0].producer() if dequantize.inputs[0] is not None else None
    return source if source is not None and source.op_type == "QuantizeLinear" else None


def _of_constant(dequantize: ir.Node) -> bool:
    source = quantizer(dequantize)
    return is_constant(source.inputs[0] if source is not None else dequantize.inputs[0])


def _axis(node: ir.Node, moves: list[ir.Node]) -> int | None:
    """Return the axis of the scales after `moves`."""
    if scales(node) < 2:
        return None
    rank = rank_of(node.inputs[0])
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
    if axis < 0 and rank is None:
        return None
    axis = axis + rank if axis < 0 and rank is not None else axis
    for move in moves:
        if move.op_type in _SHAPED:
            return None
        if move.op_type == "Transpose" and (rank or "perm" in move.attributes):
            given = move.attributes["perm"].as_ints() if "perm" in move.attributes else ()
            axis = list(given or reversed(range(rank or 0))).index(axis)
    return axis


def rank_of(value: ir.Value | None) -> int | None:
    """Return the number of dimensions where it is known."""
    return len(value.shape) if value is not None and value.shape is not None else None


def numbers(value: ir.Value | None) -> np.ndarray | None:
    """Return a constant as float64, whatever its type; None for what is computed."""
    array = constant_of(value)
    return None if array is None else np.asarray(array, np.float64)
