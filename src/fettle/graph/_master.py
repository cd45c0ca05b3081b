"""What passes share that rewrite the int8 master: whom they suit, and what they refuse."""

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


class OfQuantized:
    """Comes before `GraphPass` among the bases of a pass for any quantized model on x86."""

    @classmethod
    def suits(cls, machine: Machine) -> bool:
        """Say whether this is an x86 processor."""
        return machine.is_x86

    def requires(self, model: ir.Model) -> None:
        """Refuse a model without quantized activations."""
        if not any(node.op_type == "QuantizeLinear" for node in model.graph):
            raise ModelError(
                f"`{self.name()}` is for quantized models, and this one is not;"  # type: ignore[attr-defined]
                " quantize it first"
            )


class OfConvolutions:
    """Comes before `GraphPass` among the bases of a pass for convolutional models on x86."""

    @classmethod
    def suits(cls, machine: Machine) -> bool:
        """Say whether this is an x86 processor."""
        return machine.is_x86

    def requires(self, model: ir.Model) -> None:
        """Refuse a model without convolutions."""
        if not any(node.op_type == "Conv" for node in model.graph):
            raise ModelError(
                f"`{self.name()}` rewrites convolutions, and this model has none;"  # type: ignore[attr-defined]
                " leave it out"
            )
