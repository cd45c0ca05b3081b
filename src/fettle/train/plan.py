"""The plan of a training run: every option of it, declared once as knobs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from fettle.core.knobs import Choice, Range
from fettle.core.plugin import Plugin


@dataclass(frozen=True, kw_only=True)
class FitPlan(Plugin):
    """How to fit a model; what it is fitted to is the task's business.

    One optimizer step sees `batch_size × accumulate × devices` examples. The learning rate rises
    linearly over the first `warmup` of all steps, then falls along a half cosine to `floor`
    (Loshchilov & Hutter, "SGDR", https://arxiv.org/abs/1608.03983).

    Raises:
        KnobError: on construction, when a knob is out of its bounds.
    """

    epochs: Annotated[int, Range(0, 100_000), "passes over the training split"] = 10
    batch_size: Annotated[int, Range(1, 65_536), "examples a device and micro-batch"] = 64
    lr: Annotated[float, Range(1e-8, 100, log=True), "peak learning rate"] = 0.05
    optimizer: Annotated[str, Choice("sgd", "adamw"), "sgd is Nesterov's"] = "sgd"
    momentum: Annotated[float, Range(0, 0.9999), "of SGD; the first beta of AdamW"] = 0.9
    weight_decay: Annotated[float, Range(0, 10), "not applied to biases and norms"] = 5e-4
    warmup: Annotated[float, Range(0, 1), "fraction of all steps"] = 0.05
    floor: Annotated[float, Range(0, 1), "last learning rate as a fraction of the peak"] = 0.01
    label_smoothing: Annotated[float, Range(0, 0.9), "mass spread over all classes"] = 0.0
    clip: Annotated[float, Range(0, 1e6), "largest norm of the gradient; 0 is off"] = 0.0
    accumulate: Annotated[int, Range(1, 4096), "micro-batches an optimizer step"] = 1
    precision: Annotated[
        str, Choice("32", "bf16-mixed", "16-mixed"), "compute type; weights stay in 32 bits"
    ] = "32"
    accelerator: Annotated[
        str, Choice("auto", "cpu", "cuda"), "where to train; auto takes the GPU if there is one"
    ] = "auto"
    devices: Annotated[int, Range(1, 1024), "processes, each with a device and a copy"] = 1

    def lr_factor(self, step: int, total: int) -> float:
        """Return the factor on the learning rate in optimizer step `step` of `total`, from 0."""
        warm = round(self.warmup * total)
        if step < warm:
            return (step + 1) / (warm + 1)
        done = min((step - warm) / max(total - warm, 1), 1.0)
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * done))
