"""What the passes share that rewrite the activations of the int8 master for x86 processors."""

from __future__ import annotations

import onnx_ir as ir

from fettle.core.errors import ModelError
from fettle.core.machine import Machine
from fettle.graph._quantized import activation_quantizers


class OfMaster:
    """Comes before `GraphPass` among the bases of such a pass."""

    @classmethod
    def suits(cls, machine: Machine) -> bool:
        """Say whether this is an x86 processor whose 8-bit products don't saturate."""
        return machine.is_x86 and machine.has_vnni

    def requires(self, model: ir.Model) -> None:
        """Refuse a model without quantized activations."""
        if next(activation_quantizers(model.graph), None) is None:
            raise ModelError(
                f"`{self.name()}` rewrites int8 activations, and this model has none;"  # type: ignore[attr-defined]
                " quantize it first"
            )
