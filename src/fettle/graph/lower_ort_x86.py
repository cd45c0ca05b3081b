"""Lower the symmetric int8 master for onnxruntime on x86.

What it does: turns int8 activations into uint8, because onnxruntime's fast x86 kernels multiply
uint8 by int8 and its own s8 kernels run at a fraction of that speed. A tensor that can't be
negative gets zero point 0 and the whole range (scale × 127/255, one bit more of resolution), so
that onnxruntime absorbs the ReLU or Clip before it; any other gets zero point 128, which is exact.

When to use it: never by hand. A session on an x86 processor applies it when the bundle says that
it proved itself on the golden inputs and in time.

Expected effect: 2.5–4 × over the unlowered master (see `benchmarks/results`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from fettle.core.errors import ModelError
from fettle.core.machine import Machine
from fettle.graph._pass import GraphPass
from fettle.graph._quantized import ActivationQuantizer, activation_quantizers
from fettle.graph._ranges import non_negative_values

if TYPE_CHECKING:
    from fettle.tasks import Task


@dataclass(frozen=True, kw_only=True)
class LowerOrtX86(GraphPass):
    """int8 → uint8 activations for onnxruntime on x86."""

    lowers_for = "onnxruntime"

    @classmethod
    def suits(cls, machine: Machine) -> bool:
        """Say whether this is an x86 processor whose 8-bit products don't saturate."""
        return machine.is_x86 and machine.has_vnni

    def requires(self, model: ir.Model) -> None:
        """Refuse a model without quantized activations."""
        if next(activation_quantizers(model.graph), None) is None:
            raise ModelError(
                f"`{self.name()}` rewrites int8 activations, and this model has none;"
                " quantize it first"
            )

    def apply(self, model: ir.Model, task: Task | None) -> ir.Model:
        """Rewrite every activation's QuantizeLinear/DequantizeLinear group."""
        del task
        non_negative = non_negative_values(model.graph)
        for quantizer in activation_quantizers(model.graph):
            _to_uint8(model.graph, quantizer, quantizer.source in non_negative)
        return model


def _to_uint8(graph: ir.Graph, quantizer: ActivationQuantizer, non_negative: bool) -> None:
    scale, zero_point = quantizer.scale, 128
    if non_negative:
        scale, zero_point = np.float32(scale * np.float32(127 / 255)), 0
    name = quantizer.output.name
    new_scale = _constant(graph, f"{name}_u8_scale", np.array(scale, np.float32))
    new_zero = _constant(graph, f"{name}_u8_zero_point", np.array(zero_point, np.uint8))
    for node in quantizer.nodes:
        node.replace_input_with(1, new_scale)
        node.replace_input_with(2, new_zero)
    quantizer.output.dtype = ir.DataType.UINT8


def _constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    value.dtype, value.shape = ir.DataType.from_numpy(array.dtype), ir.Shape(array.shape)
    graph.register_initializer(value)
    return value
