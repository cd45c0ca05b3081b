"""Adding constants to a graph."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir


def set_type(value: ir.Value, like: ir.Value | None) -> None:
    """Give `value` the element type of another; the two don't share what holds it."""
    if like is not None and like.dtype is not None:
        value.dtype = like.dtype


def add_constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """Register `array` as an initializer called `name` and return its value."""
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    value.dtype, value.shape = ir.DataType.from_numpy(array.dtype), ir.Shape(array.shape)
    graph.register_initializer(value)
    return value
