"""What every way of distillation needs: a student, and how it is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import nn

from fettle.compress._masks import with_zeros_kept
from fettle.compress._technique import Technique
from fettle.core.knobs import Choice, Range, Text
from fettle.tasks import Task
from fettle.train import FitPlan, Hooks, fit
from fettle.train.hooks import Loss


@dataclass(frozen=True, kw_only=True)
class Taught(Technique):
    """A technique that trains a student on what a teacher says."""

    takes_teacher = True

    student: Annotated[
        str, Text("model name"), "architecture to train from scratch; empty: the model that came in"
    ] = ""
    epochs: Annotated[int, Range(1, 1000), "passes over the training data"] = 20
    lr: Annotated[float, Range(1e-6, 1, log=True), "peak learning rate"] = 0.05
    batch_size: Annotated[int, Range(1, 65536, "examples"), "examples a step"] = 64
    optimizer: Annotated[str, Choice("sgd", "adamw"), "how weights are updated"] = "sgd"
    precision: Annotated[
        str, Choice("32", "bf16-mixed", "16-mixed"), "compute type; weights stay in 32 bits"
    ] = "32"

    def train(self, learner: nn.Module, task: Task, loss: Loss) -> None:
        """Train `learner` in place; weights that are zero stay so."""
        plan = FitPlan(
            epochs=self.epochs,
            lr=self.lr,
            batch_size=self.batch_size,
            optimizer=self.optimizer,
            precision=self.precision,
        )
        fit(learner, task, plan, self.context, with_zeros_kept(Hooks(loss=loss), learner))
