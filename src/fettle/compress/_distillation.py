"""Knowledge distillation's loss: the student learns the teacher's whole distribution.

    L = α · T² · KL(softmax(teacher / T) ‖ softmax(student / T)) + (1 − α) · CE(student, target)

Where outputs are no logits (values, embeddings, anything else), the first term is the squared
difference of the outputs over the teacher's variance, and the second is the task's own loss.

Hinton, Vinyals, Dean: "Distilling the Knowledge in a Neural Network", 2015. Standardised logits:
Sun, Ren, Li, Wang, Cao: "Logit Standardization in Knowledge Distillation", CVPR 2024. Decoupled:
Zhao, Cui, Song, Qiu, Liang: "Decoupled Knowledge Distillation", CVPR 2022.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fettle.compress._teacher import Teacher
from fettle.core.arrays import Batch
from fettle.tasks import Task
from fettle.train import first_output


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
    return _divergence(student / how.temperature, teacher / how.temperature) * how.temperature**2


def output_loss(student: Tensor, teacher: Tensor, how: Distillation) -> Tensor:
    """Return Σ (student − teacher)² / Σ (teacher − mean)², for outputs that are no logits.

    Args:
        student: outputs (n, …).
        teacher: the same shape.
        how: has no say here.
    """
    del how
    signal = (teacher - teacher.mean(dim=0, keepdim=True)).square().sum()
    return (student - teacher).square().sum() / signal.clamp(min=1e-12)


def decoupled_losses(
    student: Tensor, teacher: Tensor, targets: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Return T² times both parts of KL(teacher ‖ student), each averaged over the batch.

    The first is of the binary distribution (target, all others), the second of the distribution
    among the others; an example's whole divergence is the first plus (1 − p_target) of the second.

    Args:
        student: logits (n, classes).
        teacher: logits (n, classes).
        targets: class of each example, int64 of shape (n,).
        temperature: of both.
    """
    both = [logits / temperature for logits in (student, teacher)]
    true = F.one_hot(targets, student.shape[1]).bool()
    first, second = (
        [split(logits, true) for logits in both] for split in (_target_or_not, _others)
    )
    squared = temperature**2
    return _divergence(*first) * squared, _divergence(*second) * squared


class DistillingLoss:
    """The training loss of a student of `teacher`, which stays frozen and in eval mode."""

    def __init__(
        self, teacher: nn.Module, task: Task, how: Distillation, precision: str = "32"
    ) -> None:
        self.teacher = Teacher(teacher, task, precision)
        self.task, self.how = task, how

    def __call__(self, model: nn.Module, inputs: tuple[Tensor, ...], batch: Batch) -> Tensor:
        """Return the loss of one batch as a scalar."""
        student = first_output(model(*inputs))  # nets with heads for training return several
        hard = self.task.loss(student, batch, self.how.label_smoothing)
        if self.how.alpha == 0:
            return hard
        taught = self.teacher(inputs, batch)
        loss = soft_loss if self.task.gives_logits else output_loss
        return self.how.alpha * loss(student, taught, self.how) + (1 - self.how.alpha) * hard


def _divergence(student: Tensor, teacher: Tensor) -> Tensor:
    log_p, log_q = F.log_softmax(student, dim=1), F.log_softmax(teacher, dim=1)
    return F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)


def _target_or_not(logits: Tensor, true: Tensor) -> Tensor:
    """Return (n, 2): the target's logit, and one that stands for all others."""
    return torch.stack([logits[true], _others(logits, true).logsumexp(dim=1)], dim=1)


def _others(logits: Tensor, true: Tensor) -> Tensor:
    """Return (n, classes − 1): all but the target's."""
    return logits[~true].view(len(logits), -1)


def _z_scores(logits: Tensor) -> Tensor:
    centred = logits - logits.mean(dim=1, keepdim=True)
    return centred / (logits.std(dim=1, keepdim=True) + 1e-7)
