"""Lower weights kept in 8 or 4 bits for onnxruntime.

What it does: onnxruntime has fast integer kernels for linear layers and LSTMs whose input is
quantized on each run, but unpacks a weight behind DequantizeLinear again and again. So linear
layers become DynamicQuantizeMatMul and LSTMs DynamicQuantizeLSTM, at 8 bits and per channel: int8
weights as they are, int4 weights rounded once more, which adds an error far below their own.
Whatever else reads a weight behind DequantizeLinear (GRUs, convolutions) gets it in float. All of
it in memory: the file keeps its size. A layer whose input is quantized too is left to the integer
kernels for static quantization.

When to use it: never by hand. A session applies it when the bundle says that it proved itself on
the golden inputs and in time.

Expected effect: the speed of dynamic INT8, 1.8–3.6 times FP32's at batch 1 for transformers and
LSTMs (`benchmarks/results`, dynamic).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir
from onnx_ir.traversal import RecursiveGraphIterator

from fettle.core.errors import ModelError
from fettle.core.machine import Machine
from fettle.graph._constants import add_constant
from fettle.graph._dequantize import dequantized
from fettle.graph._dynamic import make_dynamic
from fettle.graph._pass import GraphPass
from fettle.graph._quantized import constant_of
from fettle.graph._weight_fold import fresh
from fettle.graph._weight_slots import RECURRENT, find_weights

if TYPE_CHECKING:
    from fettle.tasks import Task

_LAYERS = ("MatMul", "Gemm", "Conv", "ConvTranspose", *RECURRENT)


@dataclass(frozen=True, kw_only=True)
class LowerOrtWeightOnly(GraphPass):
    """Weight-only int8 and int4 → dynamic int8 for onnxruntime."""

    lowers_for = "onnxruntime"

    @classmethod
    def suits(cls, machine: Machine) -> bool:
        """Say whether this processor's 8-bit products don't saturate."""
        return machine.has_vnni or not machine.is_x86

    def requires(self, model: ir.Model) -> None:
        """Refuse a model without weights that stand alone behind DequantizeLinear."""
        if not _packed(model):
            raise ModelError(
                f"`{self.name()}` rewrites layers of which the weights alone are quantized, and"
                " this model has none; quantize it with `graph.weight_only` first"
            )

    def apply(self, model: ir.Model, task: Task | None) -> ir.Model:
        """Unpack every such weight, and let linear layers and LSTMs compute in integers."""
        del task
        unpacked = {_unpack(model, node) for node in _packed(model)}
        found = [
            weight
            for weight in find_weights(model, ("MatMul", "Gemm", "LSTM"))
            if weight.value in unpacked
        ]
        make_dynamic(model, found)
        return model


def _packed(model: ir.Model) -> list[ir.Node]:
    """Return the DequantizeLinear nodes that make weights of layers with float inputs."""
    return [
        node
        for node in RecursiveGraphIterator(model.graph)
        if node.op_type == "DequantizeLinear"
        and all(constant_of(value) is not None for value in node.inputs if value is not None)
        and node.outputs[0].uses()
        and all(_is_float_layer(usage.node) for usage in node.outputs[0].uses())
    ]


def _is_float_layer(node: ir.Node) -> bool:
    makers = [value.producer() for value in node.inputs[:3] if value is not None]
    activations = [m for m in makers if m is not None and m.op_type == "DequantizeLinear"]
    return node.op_type in _LAYERS and not any(
        constant_of(m.inputs[0]) is None for m in activations
    )


def _unpack(model: ir.Model, node: ir.Node) -> ir.Value:
    array = dequantized(node)
    assert array is not None
    value = add_constant(model.graph, fresh(model.graph, str(node.outputs[0].name)), array)
    node.outputs[0].replace_all_uses_with(value)
    assert node.graph is not None
    node.graph.remove(node, safe=True)
    return value
