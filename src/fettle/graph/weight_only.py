"""Keep weights in 8 or 4 bits and compute in floating point.

What it does: stores the weights of linear and recurrent layers, and embeddings, as whole numbers
with zero point 0, behind DequantizeLinear: standard ONNX, which every engine reads. At 8 bits each
output channel has a scale, max|w| / 127. At 4 bits each `group` of weights that are summed has one,
the best of ten clipped ranges by squared error; a layer whose length no group of 16 or more
divides, embeddings and recurrent layers stay at 8 bits. 4 bits need operator set 21, to which the
model is raised. Constants that an exporter left behind Slice and Transpose are computed first, and
shared weights stay shared. Convolutions only on request: that makes the file smaller, not faster.

When to use it: size above all, or models bound by memory, such as transformers at batch 1. OpenVINO
multiplies by the small weights as they are, and quantizes the inputs of these layers on its own, in
groups. onnxruntime would unpack the weights on each run, so there `graph.lower_ort_weight_only`
rewrites the layers for its integer kernels when the session is built.

Expected effect: a quarter (8 bits) or about a seventh (4 bits) of the bytes of these layers; at 8
bits the outputs move by 0.5–3 %, at 4 bits by 4–25 % on random weights: check the verdict. The
speed of dynamic INT8 on both engines (`benchmarks/results`, dynamic).

Papers: Dettmers et al., "LLM.int8()", NeurIPS 2022 (arXiv:2208.07339); Frantar et al., "GPTQ",
ICLR 2023 (arXiv:2210.17323), whose round-to-nearest baseline with groups this is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import onnx_ir as ir

from fettle.core.errors import ModelError
from fettle.core.knobs import Choice
from fettle.graph._opset import raised
from fettle.graph._pass import GraphPass
from fettle.graph._weight_coding import fitting_group, store_int4, store_int8
from fettle.graph._weight_fold import drop_unused
from fettle.graph._weight_slots import RECURRENT, Weight, find_weights

if TYPE_CHECKING:
    from fettle.tasks import Task

_LINEAR = ("MatMul", "Gemm")


@dataclass(frozen=True, kw_only=True)
class WeightOnly(GraphPass):
    """INT8 or INT4 weights, floating-point arithmetic."""

    bits: Annotated[int, Choice(8, 4), "bits of a weight of a linear layer"] = 8
    group: Annotated[int, Choice(16, 32, 64, 128), "weights that share a scale at 4 bits"] = 32
    embeddings: Annotated[bool, Choice(True, False), "also tables that are looked up"] = True
    convolutions: Annotated[bool, Choice(False, True), "also convolutions, for size alone"] = False

    def apply(self, model: ir.Model, task: Task | None) -> ir.Model:
        """Rewrite every weight that is large enough to pay.

        Raises:
            ModelError: there is none, or one holds NaN or infinity.
        """
        del task
        model = raised(model, 21 if self.bits == 4 else 13)
        found = find_weights(model, self._operators())
        if not found:
            raise ModelError(
                f"`{self.name()}` found no float32 weights of linear or recurrent layers or"
                " embeddings to store in fewer bits (a float16 or float64 model must be exported in"
                " float32); leave it out, or give convolutions=True for a convolutional network"
            )
        for weight in found:
            self._store(model, weight)
        drop_unused(model)
        return model

    def _operators(self) -> tuple[str, ...]:
        tables = ("Gather",) if self.embeddings else ()
        return (*_LINEAR, *RECURRENT, *tables, *(("Conv",) if self.convolutions else ()))

    def _store(self, model: ir.Model, weight: Weight) -> None:
        linear = all(slot.node.op_type in _LINEAR for slot in weight.slots)
        group = fitting_group(weight, self.group) if self.bits == 4 and linear else None
        if group:
            store_int4(model, weight, group)
        else:
            store_int8(model, weight)
