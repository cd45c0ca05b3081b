"""Adding constants to a graph."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import NameFixPass
from onnx_ir.traversal import RecursiveGraphIterator


def set_type(value: ir.Value, like: ir.Value | None) -> None:
    """Give `value` the element type of another; the two don't share what holds it."""
    if like is not None and like.dtype is not None:
        value.dtype = like.dtype


def keep_names_apart(model: ir.Model) -> None:
    """Rename values where two have one name; inputs and outputs of the model keep theirs."""
    graph = model.graph
    made = (value for node in RecursiveGraphIterator(graph) for value in node.outputs)
    held = (v for g in (graph, *graph.subgraphs()) for v in (*g.inputs, *g.initializers.values()))
    names = [value.name for value in dict.fromkeys((*made, *held)) if value.name]
    if len(set(names)) < len(names):
        NameFixPass()(model)


def add_constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """Register `array` as an initializer called `name`, or like it, and return its value."""
    while name in graph.initializers:
        name += "_"
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    value.dtype, value.shape = ir.DataType.from_numpy(array.dtype), ir.Shape(array.shape)
    graph.register_initializer(value)
    return value
