"""Quantization-aware training: the model learns with rounding in its forward pass.

What it does: inserts fake quantization where `quantize.static` would quantize, trains with the
straight-through estimator, by default with distillation from the float model that came in, and
converts to the same symmetric int8 master. In the last part of the training batch norms' statistics
and observed ranges stand still. Scales are observed, or learned with the weights. Weights that are
zero when the training begins stay zero.

When to use it: when `quantize.static` loses too much, always after pruning, and on small nets.

Expected effect: speed and size of `quantize.static`, the accuracy of the float model. A step takes
about twice the time of a float step.

Papers: Jacob et al. 2018 (arXiv 1712.05877); Krishnamoorthi 2018 (arXiv 1806.08342); with a
teacher, Mishra and Marr 2018 (arXiv 1711.05852); learned scales, Esser et al. 2020 (arXiv
1902.08153).
"""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import nn
from torch.fx import GraphModule
from torch.nn.modules.batchnorm import _BatchNorm

from fettle.compress._distillation import Distillation, DistillingLoss
from fettle.compress._masks import EachStep, with_zeros_kept
from fettle.compress._technique import Technique, example_tensors
from fettle.compress.quantize import _pt2e
from fettle.compress.quantize._learned import KeepPositive, learn_scales, with_scales
from fettle.compress.quantize._norms import Freeze, set_training
from fettle.core.errors import DataError
from fettle.core.knobs import Choice, Range, Text
from fettle.tasks import Task
from fettle.train import FitPlan, Hooks, fit

_FIRST_BATCHES = 8  # of the calibration split, from which learned scales start


@dataclass(frozen=True, kw_only=True)
class Aware(Technique):
    """Quantization-aware training, then conversion to int8."""

    final = True

    epochs: Annotated[int, Range(1, 1000), "passes over the training data"] = 10
    lr: Annotated[float, Range(1e-7, 1, log=True), "peak learning rate"] = 0.005
    optimizer: Annotated[str, Choice("sgd", "adamw"), "how weights are updated"] = "sgd"
    batch_size: Annotated[int, Range(1, 65536, "examples"), "examples a step"] = 64
    alpha: Annotated[float, Range(0, 1), "share of distillation from the float model"] = 0.7
    temperature: Annotated[float, Range(1, 20), "temperature of that distillation"] = 3.0
    freeze: Annotated[
        float, Range(0, 1), "part of the training after which norms and observed ranges freeze"
    ] = 0.7
    scales: Annotated[
        str, Choice("observed", "learned"), "where scales come from: ranges seen, or training (LSQ)"
    ] = "observed"
    leave: Annotated[
        str, Text("paths of modules, with commas and `*`"), "layers that stay in floating point"
    ] = ""

    def requires(self, model: nn.Module, task: Task) -> None:
        """Refuse to train batch norms on single examples, which have no spread."""
        super().requires(model, task)
        norms = any(isinstance(module, _BatchNorm) for module in model.modules())
        if norms and min(self.batch_size, task.size("train")) < 2:
            raise DataError(
                f"`{self.name()}` trains batch norms, and expects at least two examples in a step:"
                f" got {task.size('train')} in the training split and `batch_size` ="
                f" {self.batch_size}; give more of either, or use `quantize.static`"
            )

    def apply(self, model: nn.Module, task: Task) -> nn.Module:
        """Return the trained and converted graph."""
        teacher = copy.deepcopy(model)
        prepared = _pt2e.prepare_training(model, example_tensors(task), self.scales, self.leave)
        if self.scales == "learned":
            self._start_scales(prepared, task)
        plan = FitPlan(
            epochs=self.epochs, lr=self.lr, batch_size=self.batch_size, optimizer=self.optimizer
        )
        hooks = with_zeros_kept(self._hooks(teacher, task), prepared)
        fit(prepared, task, plan, self.context, hooks)
        return _pt2e.convert(prepared)

    def _hooks(self, teacher: nn.Module, task: Task) -> Hooks:
        learned = self.scales == "learned"
        freeze = Freeze(self.freeze)
        return Hooks(
            loss=DistillingLoss(teacher, task, Distillation(self.alpha, self.temperature)),
            set_mode=set_training,
            on_step=EachStep((freeze, KeepPositive())) if learned else freeze,
            parameters=with_scales if learned else None,
            key=str(self),
        )

    def _start_scales(self, prepared: GraphModule, task: Task) -> None:
        """Begin with the ranges of a few batches, as the paper does with their mean size."""
        batches = itertools.islice(task.batches("calibrate", self.batch_size), _FIRST_BATCHES)
        _pt2e.calibrate(
            prepared, (tuple(map(torch.from_numpy, b.inputs.values())) for b in batches)
        )
        learn_scales(prepared)
