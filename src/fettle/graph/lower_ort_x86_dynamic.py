"""Quantize what several dynamic products read once, for onnxruntime on x86.

What it does: DynamicQuantizeMatMul finds the range of its input and rounds it by itself, so the
queries, keys and values of an attention do the same work three times. Products that read one
tensor become one DynamicQuantizeLinear and MatMulIntegerToFloat, which is the same arithmetic:
not a bit changes.

When to use it: never by hand, and after `graph.lower_ort_weight_only`.

Expected effect: 1.01–1.02 × on a transformer in dynamic INT8 (sums of kernel times), so it proves
itself only on a quiet machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

from fettle.core.machine import Machine
from fettle.graph._pass import GraphPass
from fettle.graph._weight_coding import put_instead
from fettle.graph._weight_fold import fresh

if TYPE_CHECKING:
    from fettle.tasks import Task

_PRODUCT = "DynamicQuantizeMatMul"


@dataclass(frozen=True, kw_only=True)
class LowerOrtX86Dynamic(GraphPass):
    """One quantization for all products of a tensor."""

    lowers_for = "onnxruntime"

    @classmethod
    def suits(cls, machine: Machine) -> bool:
        """Say whether this is an x86 processor."""
        return machine.is_x86

    def apply(self, model: ir.Model, task: Task | None) -> ir.Model:
        """Rewrite every group of products that read one tensor, if there is one."""
        del task
        for value, products in _shared(model.graph).items():
            parts = _quantized(model.graph, value, products[0])
            for product in products:
                _multiply(product, parts)
        return model


def _shared(graph: ir.Graph) -> dict[ir.Value, list[ir.Node]]:
    """Return the tensors that two products or more read, each with its products in order."""
    found: dict[ir.Value, list[ir.Node]] = {}
    for node in graph:
        if node.op_type == _PRODUCT and node.inputs[0] is not None:
            found.setdefault(node.inputs[0], []).append(node)
    return {value: products for value, products in found.items() if len(products) > 1}


def _quantized(graph: ir.Graph, value: ir.Value, first: ir.Node) -> list[ir.Value]:
    """Put a quantization of `value` before its `first` reader; return codes, scale, zero point."""
    node = ir.Node("", "DynamicQuantizeLinear", [value], num_outputs=3, name=f"{first.name}_input")
    parts = zip(node.outputs, ("quantized", "scale", "zero_point"), strict=True)
    for made, part in parts:
        made.name = fresh(graph, f"{value.name}_{part}")
        made.dtype = ir.DataType.FLOAT if part == "scale" else ir.DataType.UINT8
    node.outputs[0].shape = value.shape
    graph.insert_before(first, node)
    return list(node.outputs)


def _multiply(product: ir.Node, parts: list[ir.Value]) -> None:
    codes, scale, zero = parts
    _, weight, weight_scale, weight_zero, bias = [*product.inputs, None, None][:5]
    inputs = [codes, weight, scale, weight_scale, zero, weight_zero, bias]
    while inputs[-1] is None:
        inputs.pop()
    made = ir.node("MatMulIntegerToFloat", inputs, domain=product.domain, name=product.name)
    put_instead(product, [made])
