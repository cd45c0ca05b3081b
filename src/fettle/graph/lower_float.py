"""Leave slow layers alone: turn named layers of the int8 master back to floating point.

What it does: the int8 weights of each named layer become floats (the same numbers), it reads its
input before that was quantized, and so do the operators between such layers. One master then
serves every engine, and each engine leaves in float what is slower there in INT8.

When to use it: never by hand. Whoever chooses the lowering finds the layers by measurement, not by
name: it compares each layer's time in both types, and tries the best groups in truth.

Expected effect: no layer is slower for having been quantized. Outputs come closer to FP32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
import onnx_ir as ir

from fettle.core.errors import ModelError
from fettle.core.knobs import Text
from fettle.graph._constants import add_constant
from fettle.graph._dequantize import dequantized
from fettle.graph._float_sums import read_float_sums
from fettle.graph._pass import GraphPass
from fettle.graph._quantized import constant_of, weighted_nodes
from fettle.graph._transposed import straighten_weights

if TYPE_CHECKING:
    from fettle.tasks import Task

_RECTIFIERS = {"Relu", "Clip"}
_VIEWS = {"Reshape", "Flatten", "Squeeze"}
_OF_ALL = {"Add", "Mul", "Concat"}  # the further inputs of any other are no activations
_CARRIERS = _RECTIFIERS | {"HardSwish", "HardSigmoid", "Sigmoid", "Add", "Mul", "MaxPool",
                           "AveragePool", "GlobalAveragePool", "ReduceMean", "Concat", "Pad",
                           "Reshape", "Flatten", "Transpose", "Squeeze", "Slice"}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LowerFloat(GraphPass):
    """Named layers of the master in floating point."""

    nodes: Annotated[
        str,
        Text("names between commas"),
        "outputs of the weighted nodes to turn back to float; none by default",
    ] = ""

    def requires(self, model: ir.Model) -> None:
        """Refuse a model without quantized layers, and names that it doesn't have."""
        known = {str(node.outputs[0].name) for node in weighted_nodes(model.graph)}
        if not known:
            raise ModelError(
                f"`{self.name()}` turns quantized layers back, and this model has none;"
                " quantize it first"
            )
        unknown = [name for name in self._names() if name not in known]
        if unknown:
            raise ModelError(
                f"`{self.name()}` found no quantized layer that makes {unknown}; the layers are"
                f" {', '.join(sorted(known))}"
            )

    def apply(self, model: ir.Model, task: Task | None) -> ir.Model:
        """Turn the named layers and what only they touch back to float."""
        del task
        names = set(self._names())
        slow = [node for node in weighted_nodes(model.graph) if node.outputs[0].name in names]
        if slow:
            straighten_weights(model.graph)
        born: set[ir.Value] = set()
        for node in list(model.graph):
            if node in slow:
                _turn(model.graph, node)
                born.add(node.outputs[0])
            elif node.op_type in _CARRIERS and _carries(node, born):
                _read_float(node)
                born.update(node.outputs)
        if slow:
            read_float_sums(model.graph)
            _sweep(model.graph)
        return model

    def _names(self) -> list[str]:
        return [name.strip() for name in self.nodes.split(",") if name.strip()]


def _turn(graph: ir.Graph, node: ir.Node) -> None:
    """Give a layer float weights and a float input."""
    for index in range(1, len(node.inputs)):
        value = node.inputs[index]
        array = _dequantized(value)
        if array is not None and value is not None:
            name = f"{node.outputs[0].name}_{index}_float"
            node.replace_input_with(index, add_constant(graph, name, array))
    _read_float(node)
    view = node.inputs[0].producer() if node.inputs[0] is not None else None
    if view is not None and view.op_type in _VIEWS and len(view.outputs[0].uses()) == 1:
        _read_float(view)


def _dequantized(value: ir.Value | None) -> np.ndarray | None:
    """Return the floats of a constant behind a DequantizeLinear."""
    node = value.producer() if value is not None else None
    return dequantized(node) if node is not None and node.op_type == "DequantizeLinear" else None


def _read_float(node: ir.Node) -> None:
    """Let a node read its activations as they were before they were quantized."""
    for index, value in enumerate(node.inputs):
        source = _before_pair(value)
        if source is not None:
            node.replace_input_with(index, source)


def _before_pair(value: ir.Value | None) -> ir.Value | None:
    """Return the float tensor behind QuantizeLinear and DequantizeLinear, if both are there."""
    dequantize = value.producer() if value is not None else None
    if dequantize is None or dequantize.op_type != "DequantizeLinear":
        return None
    integers = dequantize.inputs[0]
    quantize = integers.producer() if integers is not None else None
    if quantize is None or quantize.op_type != "QuantizeLinear":
        return None
    return _before_pair(quantize.inputs[0]) or quantize.inputs[0]  # pairs may follow each other


def _carries(node: ir.Node, born: set[ir.Value]) -> bool:
    """Say whether every activation that the node reads comes out of a float layer."""
    read = node.inputs if node.op_type in _OF_ALL else node.inputs[:1]
    activations = [v for v in read if v is not None and constant_of(v) is None]
    return bool(activations) and all(v in born or _before_pair(v) in born for v in activations)


def _sweep(graph: ir.Graph) -> None:
    """Remove the quantizing nodes that nobody reads any more."""
    for node in reversed(list(graph)):
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"} and not _is_read(node):
            graph.remove(node, safe=True)


def _is_read(node: ir.Node) -> bool:
    return any(value.uses() or value.is_graph_output() for value in node.outputs)
