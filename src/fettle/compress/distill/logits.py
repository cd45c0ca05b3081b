"""Distillation of logits: train a student on the teacher's softened outputs.

What it does: trains `student` with L = α·T²·KL(teacher ‖ student) + (1 − α)·cross-entropy. The
teacher is the one of the context (`--teacher`; several are averaged), else the model that comes in.
Without a `student` the model that comes in is trained itself; if it was pruned, its zeros stay.

When to use it: whenever there is training data. Depth and width of the student decide the speed,
and shallower students gain more of it than thinner ones.

Expected effect: 2–5 × faster for 0.5–3 points, by the capacity of the student. Its limit is the
student's capacity: choose a larger one when the drop is too large.

Papers: Hinton, Vinyals, Dean 2015 (arXiv 1503.02531); with `standardize`, Sun et al. 2024.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import nn

from fettle.compress._distillation import Distillation, DistillingLoss
from fettle.compress._technique import Technique
from fettle.compress.distill._student import teacher_and_student
from fettle.compress.distill._taught import Taught
from fettle.core.knobs import Choice, Range
from fettle.tasks import Task


@dataclass(frozen=True, kw_only=True)
class Logits(Taught, Technique):
    """Knowledge distillation on logits (Hinton et al., 2015)."""

    alpha: Annotated[float, Range(0, 1), "share of the teacher's loss; the rest is labels'"] = 0.7
    temperature: Annotated[float, Range(1, 20), "how much the logits are softened"] = 3.0
    standardize: Annotated[bool, Choice(False, True), "z-score the logits first"] = False

    def apply(self, model: nn.Module, task: Task) -> nn.Module:
        """Return the trained student."""
        teacher, student = teacher_and_student(model, task, self.student, self.context)
        how = Distillation(self.alpha, self.temperature, self.standardize)
        self.train(student, task, DistillingLoss(teacher, task, how, self.precision))
        return student
