"""Knowledge distillation's loss: the student learns the teacher's whole distribution.

    L = α · T² · KL(softmax(teacher / T) ‖ softmax(student / T)) + (1 − α) · CE(student, target)

Hinton, Vinyals, Dean: "Distilling the Knowledge in a Neural Network", 2015. Standardised logits:
Sun, Ren, Li, Wang, Cao: "Logit Standardization in Knowledge Distillation", CVPR 2024.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fettle.core.arrays import Batch
from fettle.tasks import Task


@dataclass(frozen=True)
class Distillation:
    """How much of the teacher (`alpha`, 0 … 1) is mixed in, and how softly (`temperature`)."""

    alpha: float
    temperature: float
    standardize: bool = False
    label_smoothing: float = 0.0


def soft_loss(student: Tensor, teacher: Tensor, how: Distillation) -> Tensor:
    """Return T² · KL(teacher ‖ student) at temperature T, averaged over the batch.

    Args:
        student: logits (n, classes).
        teacher: logits (n, classes).
        how: temperature, and whether logits are standardised (z-scored by example) first.
    """
    if how.standardize:
        student, teacher = _z_scores(student), _z_scores(teacher)
    log_p = F.log_softmax(student / how.temperature, dim=1)
    log_q = F.log_softmax(teacher / how.temperature, dim=1)
    return F.kl_div(log_p, log_q, reduction="batchmean", log_target=True) * how.temperature**2


class DistillingLoss:
    """The training loss of a student of `teacher`, which stays frozen and in eval mode."""

    def __init__(self, teacher: nn.Module, task: Task, how: Distillation) -> None:
        self.teacher = teacher.eval().requires_grad_(False)
        self.task, self.how = task, how

    def __call__(self, model: nn.Module, inputs: tuple[Tensor, ...], batch: Batch) -> Tensor:
        """Return the loss of one batch as a scalar."""
        student: Tensor = model(*inputs)
        hard = self.task.loss(student, batch, self.how.label_smoothing)
        if self.how.alpha == 0:
            return hard
        self.teacher.to(student.device)
        with torch.no_grad():
            taught = self.teacher(*inputs)
        return self.how.alpha * soft_loss(student, taught, self.how) + (1 - self.how.alpha) * hard


def _z_scores(logits: Tensor) -> Tensor:
    centred = logits - logits.mean(dim=1, keepdim=True)
    return centred / (logits.std(dim=1, keepdim=True) + 1e-7)
