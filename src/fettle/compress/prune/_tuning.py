"""Training what is left of a pruned model, with the model that came in as its teacher."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from torch import nn

from fettle.compress._distillation import Distillation, DistillingLoss
from fettle.compress._masks import with_zeros_kept
from fettle.compress._technique import Technique
from fettle.core.context import Context
from fettle.core.knobs import Choice, Range
from fettle.tasks import Task
from fettle.train import FitPlan, History, Hooks, fit


@dataclass(frozen=True, kw_only=True)
class FineTuned(Technique):
    """A technique that trains after it has removed something."""

    epochs: Annotated[int, Range(0, 1000), "passes over the data to fine-tune"] = 10
    lr: Annotated[float, Range(1e-6, 1, log=True), "peak learning rate of the fine-tuning"] = 0.02
    optimizer: Annotated[str, Choice("sgd", "adamw"), "how weights are updated"] = "sgd"
    batch_size: Annotated[int, Range(1, 65536, "examples"), "examples a step"] = 64
    alpha: Annotated[float, Range(0, 1), "share of distillation from the unpruned model"] = 0.7
    temperature: Annotated[float, Range(1, 20), "temperature of that distillation"] = 3.0

    def fine_tune(
        self, model: nn.Module, teacher: nn.Module, task: Task, epochs: int, part: str = ""
    ) -> None:
        """Train `model` in place for `epochs`; weights that are zero stay so.

        Args:
            model: what is left.
            teacher: the unpruned model.
            task: gives data and loss.
            epochs: how many; with 0 nothing happens.
            part: names the folder of this part's checkpoints, where there are several parts.
        """
        if not epochs:
            return
        context = self.context
        if part and context.checkpoints:
            context = replace(context, checkpoints=context.checkpoints / part)
        self.train(model, teacher, task, self.fitting(epochs), context)

    def fitting(self, epochs: int) -> FitPlan:
        """Return the plan of `epochs` with these knobs."""
        return FitPlan(
            epochs=epochs, lr=self.lr, batch_size=self.batch_size, optimizer=self.optimizer
        )

    def train(
        self, model: nn.Module, teacher: nn.Module, task: Task, plan: FitPlan, context: Context
    ) -> History:
        """Train `model` in place to do what `teacher` does, with its zeros kept."""
        loss = DistillingLoss(teacher, task, Distillation(self.alpha, self.temperature))
        return fit(model, task, plan, context, with_zeros_kept(Hooks(loss=loss), model))
