"""Where a graph takes weights: for each constant, the operators that multiply by it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.traversal import RecursiveGraphIterator

from fettle.core.errors import ModelError
from fettle.graph._weight_fold import fold_weights

SMALLEST = 256  # numbers; below, a scale and a node cost what the smaller type saves
RECURRENT = ("LSTM", "GRU", "RNN")


@dataclass(frozen=True)
class Slot:
    """An input that takes a weight.

    `channels` is the axis of the weight whose indices are output channels, `inner` the one that is
    summed over, and None where there are several.
    """

    node: ir.Node
    place: int
    channels: int
    inner: int | None

    @property
    def value(self) -> ir.Value:
        """The weight."""
        value = self.node.inputs[self.place]
        assert value is not None
        return value


@dataclass(frozen=True)
class Weight:
    """A constant that is used as a weight and as nothing else, in the same way everywhere."""

    value: ir.Value
    slots: tuple[Slot, ...]

    @property
    def array(self) -> np.ndarray:
        """The numbers, float32."""
        assert self.value.const_value is not None
        return self.value.const_value.numpy()

    @property
    def channels(self) -> int:
        """Axis of the output channels."""
        return self.slots[0].channels

    @property
    def inner(self) -> int | None:
        """Axis that is summed over."""
        return self.slots[0].inner


def find_weights(model: ir.Model, operators: tuple[str, ...]) -> list[Weight]:
    """Return the float32 weights of these kinds of nodes, subgraphs included.

    Weights that the graph makes of constants are computed first. A constant that is also used in
    another way, or that is small, is left out.

    Raises:
        ModelError: a weight holds NaN or infinity.
    """
    fold_weights(model, [slot.value for slot in _slots(model, operators)])
    by_value: dict[ir.Value, list[Slot]] = {}
    for slot in _slots(model, operators):
        by_value.setdefault(slot.value, []).append(slot)
    found = [Weight(v, tuple(slots)) for v, slots in by_value.items() if _alike(v, slots)]
    for weight in found:
        if not np.isfinite(weight.array).all():
            raise ModelError(
                f"weight `{weight.value.name}` holds NaN or infinity; mend the training first"
            )
    return found


def flag(node: ir.Node, name: str, default: int = 0) -> int:
    """Return an integer attribute of a node."""
    return node.attributes[name].as_int() if name in node.attributes else default


def _slots(model: ir.Model, operators: tuple[str, ...]) -> Iterator[Slot]:
    for node in RecursiveGraphIterator(model.graph):
        if node.op_type in operators and node.domain in ("", "ai.onnx"):
            yield from (slot for slot in _slots_of(node) if node.inputs[slot.place] is not None)


def _slots_of(node: ir.Node) -> Iterator[Slot]:
    op = node.op_type
    if op == "MatMul":
        yield from (Slot(node, 1, -1, -2), Slot(node, 0, -2, -1))
    elif op == "Gemm":
        b, a = flag(node, "transB"), flag(node, "transA")
        yield from (Slot(node, 1, 1 - b, b), Slot(node, 0, a, 1 - a))
    elif op in RECURRENT:
        yield from (Slot(node, 1, 1, 2), Slot(node, 2, 1, 2))
    elif op == "Conv":
        yield Slot(node, 1, 0, None)
    elif op == "Gather" and flag(node, "axis") == 0:
        yield Slot(node, 0, 0, 1)


def _alike(value: ir.Value, slots: list[Slot]) -> bool:
    """Say whether a constant is a large enough weight, and read by these slots alone and alike."""
    tensor = value.const_value
    if tensor is None:
        return False
    rank = len(tensor.shape)
    if tensor.dtype != ir.DataType.FLOAT or tensor.size < SMALLEST or rank < 2:
        return False
    ways = {(slot.channels % rank, _modulo(slot.inner, rank)) for slot in slots}
    read = {(usage.node, usage.idx) for usage in value.uses()}
    own = {(slot.node, slot.place) for slot in slots}
    return len(ways) == 1 and read == own and not value.is_graph_output()


def _modulo(axis: int | None, rank: int) -> int | None:
    return None if axis is None else axis % rank
