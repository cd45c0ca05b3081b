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

import onnx_ir as ir

from fettle.graph._master import OfMaster
from fettle.graph._pass import GraphPass
from fettle.graph._unsigned import to_unsigned

if TYPE_CHECKING:
    from fettle.tasks import Task


@dataclass(frozen=True, kw_only=True)
class LowerOrtX86(OfMaster, GraphPass):
    """int8 → uint8 activations for onnxruntime on x86."""

    lowers_for = "onnxruntime"

    def apply(self, model: ir.Model, task: Task | None) -> ir.Model:
        """Rewrite every activation's QuantizeLinear/DequantizeLinear group."""
        del task
        to_unsigned(model.graph)
        return model
