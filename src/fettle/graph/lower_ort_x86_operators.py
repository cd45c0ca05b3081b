"""Keep gates and pools in integers for onnxruntime on x86.

What it does: onnxruntime has no integer HardSwish, HardSigmoid or ReduceMean, so it dequantizes,
computes in float and quantizes again. Each is written with operators that it has:

    hard-sigmoid  r = Q(DQ(x) + 3; scale 6/255), read with scale 1/255
    hard-swish    DQ(x) · DQ(r; scale 1/255)
    SiLU          DQ(x) · DQ(Q(sigmoid(DQ(x)); scale 1/255))
    mean over H and W   GlobalAveragePool

The saturation of the first quantization is the gate's own clip at 0 and 1. A gate is rounded to
steps of 1/255, so it moves by at most 1/510, and a product by that share of its input.

When to use it: never by hand, and after `graph.lower_ort_x86`. OpenVINO fuses HardSwish itself.

Expected effect: MobileNetV3-small from slower than FP32 to faster (see `benchmarks/results`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

from fettle.graph._gates import lower_gates
from fettle.graph._master import OfQuantized
from fettle.graph._moves import move_integers
from fettle.graph._pass import GraphPass
from fettle.graph._pools import pool_means

if TYPE_CHECKING:
    from fettle.tasks import Task


@dataclass(frozen=True, kw_only=True)
class LowerOrtX86Operators(OfQuantized, GraphPass):
    """HardSwish, HardSigmoid, SiLU and spatial means in integers."""

    lowers_for = "onnxruntime"

    def apply(self, model: ir.Model, task: Task | None) -> ir.Model:
        """Rewrite what stands between quantized tensors."""
        del task
        lower_gates(model.graph)
        pool_means(model.graph)
        move_integers(model.graph)
        return model
