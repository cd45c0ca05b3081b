"""Putting a weight into the graph as whole numbers, with the nodes that give back the floats."""

from __future__ import annotations

from collections.abc import Iterable

import ml_dtypes
import numpy as np
import onnx_ir as ir

from fettle.graph._affine import by_channel, by_group
from fettle.graph._constants import add_constant
from fettle.graph._weight_fold import fresh
from fettle.graph._weight_slots import Slot, Weight

SMALLEST_GROUP = 16  # what engines have kernels for


def store_int8(model: ir.Model, weight: Weight) -> None:
    """Keep a weight in int8 with a scale for each output channel."""
    codes, scales = by_channel(weight.array, weight.channels)
    axis = weight.channels % codes.ndim
    store(model, weight, codes, scales, {"axis": axis})


def store_int4(model: ir.Model, weight: Weight, group: int) -> None:
    """Keep a weight in int4 with a scale for each group of `group` numbers that are summed."""
    assert weight.inner is not None
    axis = weight.inner % weight.array.ndim
    codes, scales = by_group(weight.array, axis, group)
    store(model, weight, codes.astype(ml_dtypes.int4), scales, {"axis": axis, "block_size": group})


def fitting_group(weight: Weight, group: int) -> int | None:
    """Return the largest power of two up to `group` that divides the summed axis, or None."""
    if weight.inner is None:
        return None
    length = weight.array.shape[weight.inner]
    while group >= SMALLEST_GROUP and length % group:
        group //= 2
    return group if group >= SMALLEST_GROUP else None


def store(
    model: ir.Model,
    weight: Weight,
    codes: np.ndarray,
    scales: np.ndarray,
    attributes: dict[str, int],
) -> None:
    """Put the codes in the weight's place: behind DequantizeLinear, or looked up as they are."""
    name = str(weight.value.name)
    held = [
        add_constant(model.graph, fresh(model.graph, f"{name}_quantized"), codes),
        add_constant(model.graph, fresh(model.graph, f"{name}_scale"), scales),
    ]
    lookups = [slot for slot in weight.slots if slot.node.op_type == "Gather"]
    for slot in lookups:
        _look_up(model, slot, held)
    _dequantize(name, (slot for slot in weight.slots if slot not in lookups), held, attributes)


def _dequantize(
    name: str, slots: Iterable[Slot], held: list[ir.Value], attributes: dict[str, int]
) -> None:
    """Let the slots read one DequantizeLinear in each graph that has any of them."""
    made: dict[int, ir.Value] = {}
    for slot in slots:
        graph = slot.node.graph
        assert graph is not None
        if id(graph) not in made:
            suffix = f"_{len(made)}" if made else ""
            node = ir.node("DequantizeLinear", held, attributes, name=f"{name}_dequantize{suffix}")
            value = slot.value
            node.outputs[0].name = f"{name}_dequantized{suffix}"
            node.outputs[0].dtype, node.outputs[0].shape = ir.DataType.FLOAT, value.shape
            graph.insert_before(slot.node, node)
            made[id(graph)] = node.outputs[0]
        slot.node.replace_input_with(slot.place, made[id(graph)])


def _look_up(model: ir.Model, slot: Slot, held: list[ir.Value]) -> None:
    """Look up int8 rows and their scales, and multiply: only what is read becomes float."""
    codes, scales = held
    node, name = slot.node, slot.node.outputs[0].name
    column = f"{scales.name}_column"
    if column not in model.graph.initializers:
        assert scales.const_value is not None
        add_constant(model.graph, column, scales.const_value.numpy().reshape(-1, 1))
    row = ir.node("Gather", [codes, node.inputs[1]], {"axis": 0}, name=f"{name}_row")
    scale = ir.node(
        "Gather", [model.graph.initializers[column], node.inputs[1]], {"axis": 0},
        name=f"{name}_row_scale",
    )  # fmt: skip
    cast = ir.node("Cast", [row.outputs[0]], {"to": ir.DataType.FLOAT}, name=f"{name}_row_cast")
    product = ir.node("Mul", [cast.outputs[0], scale.outputs[0]], name=f"{name}_row_times_scale")
    for made in (row, scale, cast):
        made.outputs[0].name = f"{made.name}_out"
    put_instead(node, [row, scale, cast, product])


def put_instead(node: ir.Node, made: list[ir.Node]) -> None:
    """Put nodes in the place of one; the last one's outputs take the names and types of its.

    A type that nobody wrote down is float: ONNX infers none for the operators of another domain.
    """
    graph = node.graph
    assert graph is not None
    ir.convenience.replace_nodes_and_values(
        graph, node, [node], made, node.outputs, made[-1].outputs
    )
    for value in made[-1].outputs:
        value.dtype = value.dtype or ir.DataType.FLOAT
