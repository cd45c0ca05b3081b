"""Lower the symmetric int8 master for onnxruntime on x86.

What it does: turns int8 activations into uint8, because onnxruntime's fast x86 kernels multiply
uint8 by int8 and its own s8 kernels run at a fraction of that speed. A tensor that can't be
negative gets zero point 0 and the whole range (scale × 127/255, one bit more of resolution), so
that onnxruntime absorbs the ReLU or Clip before it; any other gets zero point 128, which is exact.
What only moves values, such as the padding of a shortcut, is done on the integers, which is exact.
The float bias of a Gemm becomes int32 at the scale of its products (an error of at most half of
that scale), for onnxruntime would otherwise compute the whole layer in float.

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
from fettle.graph._constants import add_constant
from fettle.graph._moves import move_integers
from fettle.graph._pass import GraphPass
from fettle.graph._quantized import ActivationQuantizer, activation_quantizers, constant_of
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
        for node in list(model.graph):
            if node.op_type == "Gemm":
                _quantize_bias(model.graph, node)
        move_integers(model.graph)
        return model


def _to_uint8(graph: ir.Graph, quantizer: ActivationQuantizer, non_negative: bool) -> None:
    scale, zero_point = quantizer.scale, 128
    if non_negative:
        scale, zero_point = np.float32(scale * np.float32(127 / 255)), 0
    name = quantizer.output.name
    new_scale = add_constant(graph, f"{name}_u8_scale", np.array(scale, np.float32))
    new_zero = add_constant(graph, f"{name}_u8_zero_point", np.array(zero_point, np.uint8))
    for node in quantizer.nodes:
        node.replace_input_with(1, new_scale)
        node.replace_input_with(2, new_zero)
    quantizer.output.dtype = ir.DataType.UINT8


def _quantize_bias(graph: ir.Graph, gemm: ir.Node) -> None:
    """Put the bias behind a DequantizeLinear of scale s_x · s_w, where both operands have one."""
    scales = [_scale_of(value) for value in gemm.inputs[:2]]
    bias = constant_of(gemm.inputs[2]) if len(gemm.inputs) > 2 else None
    if bias is None or bias.ndim != 1 or any(scale is None for scale in scales):
        return
    product = np.float32(scales[0]) * np.float32(scales[1])
    if product.size not in (1, bias.size):
        return
    scale = np.broadcast_to(product.reshape(-1), bias.shape)
    name = f"{gemm.outputs[0].name}_bias"
    numbers = np.clip(np.round(bias / scale), -(2**31), 2**31 - 1).astype(np.int32)
    inputs = [
        add_constant(graph, f"{name}_int32", numbers),
        add_constant(graph, f"{name}_scale", scale.astype(np.float32)),
        add_constant(graph, f"{name}_zero_point", np.zeros(bias.shape, np.int32)),
    ]
    dequantize = ir.node("DequantizeLinear", inputs, {"axis": 0}, name=f"{name}_dequantize")
    dequantize.outputs[0].name = f"{name}_float"
    graph.insert_before(gemm, dequantize)
    gemm.replace_input_with(2, dequantize.outputs[0])


def _scale_of(value: ir.Value | None) -> np.ndarray | None:
    """Return the scale of the DequantizeLinear that makes `value`, if one does."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "DequantizeLinear":
        return None
    return constant_of(node.inputs[1])
