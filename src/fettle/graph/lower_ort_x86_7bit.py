"""Lower the int8 master for onnxruntime on x86 processors without VNNI: weights of 7 bits.

What it does: what `graph.lower_ort_x86` does, and halves the range of every weight to [-64, 64].
Without VNNI, a processor multiplies uint8 by int8 in pairs and adds each pair in 16 bits, where it
saturates: 255 · 127 · 2 = 64770 is past 32767, and the result is silently wrong. With weights of
at most 64, 255 · 64 · 2 = 32640 fits, whatever the activations are.

When to use it: never by hand. A session applies it where `graph.lower_ort_x86` would be wrong.

Expected effect: exact products; one bit less of resolution in the weights, which is an error of
half a step of 1/64 of each channel's largest weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from fettle.core.machine import Machine
from fettle.graph._constants import add_constant
from fettle.graph._master import OfMaster
from fettle.graph._pass import GraphPass
from fettle.graph._quantized import constant_of, weighted_nodes
from fettle.graph._transposed import straighten_weights
from fettle.graph._unsigned import to_unsigned

if TYPE_CHECKING:
    from fettle.tasks import Task

MOST = 64  # 255 · 64 · 2 = 32640 < 2 ** 15


@dataclass(frozen=True, kw_only=True)
class LowerOrtX867bit(OfMaster, GraphPass):
    """uint8 activations and 7-bit weights."""

    lowers_for = "onnxruntime"

    @classmethod
    def suits(cls, machine: Machine) -> bool:
        """Say whether this is an x86 processor whose 8-bit products saturate."""
        return machine.is_x86 and not machine.has_vnni

    def apply(self, model: ir.Model, task: Task | None) -> ir.Model:
        """Halve the weights, then rewrite the activations."""
        del task
        straighten_weights(model.graph)
        for node in list(weighted_nodes(model.graph)):
            _halve(model.graph, node)
        to_unsigned(model.graph)
        return model


def _halve(graph: ir.Graph, layer: ir.Node) -> None:
    """Round the layer's weight to twice its step, where it is symmetric int8 past the bound."""
    weight = layer.inputs[1]
    dequantize = weight.producer() if weight is not None else None
    if dequantize is None or dequantize.op_type != "DequantizeLinear":
        return  # by block, and transposed
    numbers, scale = (constant_of(value) for value in dequantize.inputs[:2])
    zero = constant_of(dequantize.inputs[2]) if len(dequantize.inputs) > 2 else None
    if numbers is None or scale is None or numbers.dtype != np.int8:
        return
    if (zero is not None and zero.any()) or np.abs(numbers.astype(int)).max(initial=0) <= MOST:
        return
    name = f"{layer.outputs[0].name}_7bit"
    halved = np.clip(np.round(numbers.astype(np.float32) / 2), -MOST, MOST).astype(np.int8)
    parts = [add_constant(graph, name, halved),
             add_constant(graph, f"{name}_scale", np.asarray(scale * np.float32(2))),
             *dequantize.inputs[2:]]  # fmt: skip
    copy = ir.node("DequantizeLinear", parts, dict(dequantize.attributes), name=f"{name}_read")
    copy.outputs[0].name, copy.outputs[0].dtype = f"{name}_float", ir.DataType.FLOAT
    graph.insert_before(layer, copy)
    layer.replace_input_with(1, copy.outputs[0])
    if not dequantize.outputs[0].uses():
        graph.remove(dequantize, safe=True)
