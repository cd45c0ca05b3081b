"""Decoupled distillation: how sure the teacher is, and what it thinks of the rest, weighed apart.

What it does: trains `student` with L = cross-entropy + T²·(target · TCKD + others · NCKD). TCKD is
the divergence on "the true class or another", NCKD the one among the other classes. The plain loss
weighs NCKD by how unsure the teacher is, and so drowns what a confident teacher knows about the
other classes. The teacher is the one of the context (`--teacher`; several are averaged), else the
model that comes in. Without a `student` the model that comes in is trained itself.

When to use it: instead of `distill.logits` where the teacher is nearly always right and sure.

Expected effect: speed of the student; the paper has it 1 … 3 points ahead of the plain loss on
CIFAR-100. With many epochs and few classes the difference is small: measure both.

Papers: Zhao, Cui, Song, Qiu, Liang 2022 (arXiv 2203.08679).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from fettle.compress._distillation import decoupled_losses
from fettle.compress._teacher import Teacher
from fettle.compress._technique import Technique
from fettle.compress.distill._student import teacher_and_student
from fettle.compress.distill._taught import Taught
from fettle.core.arrays import Batch
from fettle.core.errors import ModelError
from fettle.core.knobs import Range
from fettle.tasks import Task
from fettle.train import first_output


@dataclass(frozen=True, kw_only=True)
class Decoupled(Taught, Technique):
    """Decoupled knowledge distillation (Zhao et al., 2022)."""

    target: Annotated[float, Range(0, 100), "weight of the part on the true class (α)"] = 1.0
    others: Annotated[float, Range(0, 100), "weight of the part on the other classes (β)"] = 8.0
    temperature: Annotated[float, Range(1, 20), "how much the logits are softened"] = 4.0

    def requires(self, model: nn.Module, task: Task) -> None:
        """Refuse outputs that are no logits of classes: there is no target among them."""
        super().requires(model, task)
        if not task.gives_logits:
            raise ModelError(
                f"`{self.name()}` needs logits of classes, and this task has other outputs (its"
                f" metric is {task.metric}); use `distill.logits`, which learns any outputs"
            )

    def apply(self, model: nn.Module, task: Task) -> nn.Module:
        """Return the trained student."""
        teacher, student = teacher_and_student(model, task, self.student, self.context)
        self.train(student, task, DecoupledLoss(teacher, task, self))
        return student


class DecoupledLoss:
    """The training loss of a student of `teacher`, which stays frozen and in eval mode."""

    def __init__(self, teacher: nn.Module, task: Task, how: Decoupled) -> None:
        self.teacher, self.task = Teacher(teacher, task, how.precision), task
        self.weights, self.temperature = (how.target, how.others), how.temperature

    def __call__(self, model: nn.Module, inputs: tuple[Tensor, ...], batch: Batch) -> Tensor:
        """Return the loss of one batch as a scalar."""
        student = first_output(model(*inputs))
        targets = torch.as_tensor(batch.targets, device=student.device)
        parts = decoupled_losses(student, self.teacher(inputs, batch), targets, self.temperature)
        soft = self.weights[0] * parts[0] + self.weights[1] * parts[1]
        return self.task.loss(student, batch) + soft
