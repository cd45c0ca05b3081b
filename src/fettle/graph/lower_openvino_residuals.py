"""Lower the int8 master of a transformer for OpenVINO: residuals in float.

What it does: a sum with a term in float reads what a layer norm made as it was before it was
quantized for the layer beside it: nothing is dequantized for it, and a rounding is spared.

When to use it: never by hand. A session applies it when it proved itself in time.

Expected effect: from nothing to 1.05 × on a BERT-shaped encoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

from fettle.core.errors import ModelError
from fettle.graph._float_sums import read_float_sums
from fettle.graph._pass import GraphPass

if TYPE_CHECKING:
    from fettle.tasks import Task


@dataclass(frozen=True, kw_only=True)
class LowerOpenvinoResiduals(GraphPass):
    """Residuals as they were before they were quantized."""

    lowers_for = "openvino"

    def requires(self, model: ir.Model) -> None:
        """Refuse a model without quantized activations."""
        if not any(node.op_type == "QuantizeLinear" for node in model.graph):
            raise ModelError(
                f"`{self.name()}` is for quantized models, and this one is not; quantize it first"
            )

    def apply(self, model: ir.Model, task: Task | None) -> ir.Model:
        """Rewrite what every such sum reads."""
        del task
        read_float_sums(model.graph)
        return model
