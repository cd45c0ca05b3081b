"""Lower the symmetric int8 master for OpenVINO: uint8 activations.

What it does: turns int8 activations into uint8, as `graph.lower_ort_x86` does: a tensor that can't
be negative gets the whole range, one bit more of resolution, and any other gets zero point 128,
which is exact. OpenVINO runs the master as it is; whether its unsigned kernels are faster depends
on the network and the processor.

When to use it: never by hand. A session applies it when it proved itself in time.

Expected effect: from nothing to 1.2 × on mobile networks; slower where hard-swish follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

from fettle.core.errors import ModelError
from fettle.core.machine import Machine
from fettle.graph._pass import GraphPass
from fettle.graph._quantized import activation_quantizers
from fettle.graph._unsigned import unsigned_activations

if TYPE_CHECKING:
    from fettle.tasks import Task


@dataclass(frozen=True, kw_only=True)
class LowerOpenvinoUnsigned(GraphPass):
    """int8 → uint8 activations for OpenVINO."""

    lowers_for = "openvino"

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
        unsigned_activations(model.graph)
        return model
