"""Quantize weights to INT8 ahead, and activations at run time; no data is needed.

What it does: linear layers become DynamicQuantizeMatMul and LSTMs DynamicQuantizeLSTM, with int8
weights (symmetric, a scale for each output channel, max|w| / 127) and inputs that are quantized to
uint8 with the range that each run finds. These operators of onnxruntime are read by OpenVINO too,
which keeps activations in float and multiplies by the small weights. GRUs, for which there is no
such operator, products with a constant from the left and embeddings keep their weights in int8 and
compute in float. Convolutions are never touched: with dynamic ranges they run at a third of the
speed. The range of an input is that of its whole batch, so what else is in a batch can move a
result by a rounding.

When to use it: LSTMs and transformers on a CPU, at once and without calibration data. For
convolutional networks use static quantization. TensorRT doesn't take these operators; there
`graph.weight_only` is for size.

Expected effect: a quarter of the size of these layers; outputs move by 0.5–3 %. Over the same
engine's FP32 at batch 1 and 1 thread, LSTMs run 2.4 times as fast in onnxruntime and unchanged in
OpenVINO, transformers 1.9–3.5 times in onnxruntime and 1.4–1.7 times in OpenVINO
(`benchmarks/results`, dynamic), before `graph.lower_ort_x86_norms` and `…_dynamic`, which take
another fifth off a BERT-shaped encoder's time. A scale for each gate costs an LSTM 7 % of the speed
of one scale for all. Very small models get slower (guide).

Paper: Zafrir et al., "Q8BERT", NeurIPS EMC2 workshop 2019 (arXiv:1910.06188), whose dynamic variant
this is, without training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import onnx_ir as ir

from fettle.core.errors import ModelError
from fettle.core.knobs import Choice
from fettle.graph._dynamic import make_dynamic
from fettle.graph._opset import raised
from fettle.graph._pass import GraphPass
from fettle.graph._weight_slots import RECURRENT, find_weights

if TYPE_CHECKING:
    from fettle.tasks import Task


@dataclass(frozen=True, kw_only=True)
class DynamicInt8(GraphPass):
    """INT8 weights, and activations quantized on each run."""

    embeddings: Annotated[bool, Choice(True, False), "also tables that are looked up"] = True

    def apply(self, model: ir.Model, task: Task | None) -> ir.Model:
        """Rewrite every linear and recurrent layer that is large enough to pay.

        Raises:
            ModelError: there is none, or a weight holds NaN or infinity.
        """
        del task
        model = raised(model, 13)
        tables = ("Gather",) if self.embeddings else ()
        found = find_weights(model, ("MatMul", "Gemm", *RECURRENT, *tables))
        if not found:
            raise ModelError(
                f"`{self.name()}` is for linear and recurrent layers with float32 weights, and"
                " found none (a float16 or float64 model must be exported in float32); for a"
                " convolutional network use static quantization"
            )
        make_dynamic(model, found)
        return model
