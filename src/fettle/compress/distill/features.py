"""Distillation of features: the student also learns what its teacher sees on the way.

What it does: pairs stages of both nets by itself (the last feature map of each resolution, or the
blocks of a transformer by relative depth) and adds `weight` times their mean distance to the loss
of `distill.logits`. `hint`: the squared error against the teacher's features over both squares;
a 1×1 convolution bridges different widths, is trained along, and is dropped at the end.
`attention`: the squared distance of both nets' maps of where features are strong, Σ_c a², each of
length 1. The teacher is the one of the context (`--teacher`; of several, the first gives the
features), else the model that comes in. Without a `student` that model is trained itself.

When to use it: with a teacher of the same family, little data, or a student trained from scratch.

Expected effect: speed of the student; mostly some tenths of a point over `distill.logits` alone,
and faster learning at first. Between unlike nets it can hurt: measure both.

Papers: Romero et al. 2015, FitNets (arXiv 1412.6550); Zagoruyko, Komodakis 2017 (arXiv 1612.03928).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fettle.compress._distillation import Distillation, output_loss, soft_loss
from fettle.compress._teacher import Ensemble, Teacher
from fettle.compress._technique import Technique, example_tensors
from fettle.compress.distill._stages import Pair, captured, channels_first, pairs_of
from fettle.compress.distill._student import teacher_and_student
from fettle.compress.distill._taught import Taught
from fettle.core.arrays import Batch
from fettle.core.knobs import Choice, Range
from fettle.tasks import Task

_POOLS: tuple[Any, ...] = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)


@dataclass(frozen=True, kw_only=True)
class Features(Taught, Technique):
    """Distillation of intermediate feature maps, beside logits."""

    kind: Annotated[str, Choice("hint", "attention"), "what of the features is learned"] = "hint"
    weight: Annotated[float, Range(0, 1000), "weight of the features' distance"] = 1.0
    alpha: Annotated[float, Range(0, 1), "share of the teacher's logits; the rest is labels'"] = 0.7
    temperature: Annotated[float, Range(1, 20), "how much the logits are softened"] = 3.0

    def apply(self, model: nn.Module, task: Task) -> nn.Module:
        """Return the trained student."""
        teacher, student = teacher_and_student(model, task, self.student, self.context)
        pairs = pairs_of(student, _guide(teacher), example_tensors(task))
        told = ", ".join(f"{pair.student} ← {pair.teacher}" for pair in pairs)
        self.context.progress.say(f"features: {told}")
        learner = Learner(student, pairs, adapt=self.kind == "hint")
        self.train(learner, task, FeatureLoss(teacher, task, self, pairs))
        return student


class Learner(nn.Module):
    """A student with its adapters, which are trained and checkpointed with it.

    In training it returns logits and then each stage's features; else logits alone.
    """

    def __init__(self, student: nn.Module, pairs: list[Pair], adapt: bool) -> None:
        super().__init__()
        self.student = student
        self.paths = [pair.student for pair in pairs]
        self.adapters = nn.ModuleList(
            nn.Conv1d(*pair.widths, 1) if adapt and pair.widths[0] != pair.widths[1]
            else nn.Identity() for pair in pairs
        )  # fmt: skip

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return logits (n, classes), and in training features (n, teacher's channels, …)."""
        if not self.training:
            logits: Tensor = self.student(*inputs)
            return logits
        with captured(self.student, self.paths) as outputs:
            logits = self.student(*inputs)
        features = (channels_first(outputs[path]) for path in self.paths)
        return (logits, *map(_adapted, self.adapters, features))


class FeatureLoss:
    """The training loss of a learner; the teacher stays frozen and in eval mode."""

    def __init__(self, teacher: nn.Module, task: Task, how: Features, pairs: list[Pair]) -> None:
        self.teacher = Teacher(teacher, task).module
        self.task, self.weight = task, how.weight
        self.how = Distillation(how.alpha, how.temperature)
        self.distance = hint_loss if how.kind == "hint" else attention_loss
        self.paths = [pair.teacher for pair in pairs]

    def __call__(self, model: nn.Module, inputs: tuple[Tensor, ...], batch: Batch) -> Tensor:
        """Return the loss of one batch as a scalar."""
        logits, *features = model(*inputs)
        guide = _guide(self.teacher.to(logits.device))
        with torch.no_grad(), captured(guide, self.paths) as outputs:
            taught = self.teacher(*inputs)
        shown = [channels_first(outputs[path]) for path in self.paths]
        distances = [self.distance(*same_size(s, t)) for s, t in zip(features, shown, strict=True)]
        loss = soft_loss if self.task.gives_logits else output_loss
        soft = self.how.alpha * loss(logits, taught, self.how)
        hard = (1 - self.how.alpha) * self.task.loss(logits, batch)
        return soft + hard + self.weight * torch.stack(distances).mean()


def hint_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return Σ (student − teacher)² / (Σ student² + Σ teacher²), at most 2; 1 for zeros.

    The divisor counts as constant. With the student's own square in it a teacher of vanishing
    features can't blow the training up.

    Args:
        student: features (n, channels, …).
        teacher: the same shape.
    """
    both = student.detach().square().sum() + teacher.square().sum()
    return (student - teacher).square().sum() / both.clamp_min(1e-12)


def attention_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return ‖â_s − â_t‖², averaged over the batch, â the map Σ_c a² with length 1; 0 … 2.

    Args:
        student: features (n, channels, …).
        teacher: features (n, other channels, …), of the same size.
    """
    maps = [F.normalize(a.square().sum(1).flatten(1), dim=1) for a in (student, teacher)]
    return (maps[0] - maps[1]).square().sum(1).mean()


def same_size(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Return both averaged to the smaller of their sizes, dimension by dimension."""
    if student.shape[2:] == teacher.shape[2:]:
        return student, teacher
    smaller = [min(a, b) for a, b in zip(student.shape[2:], teacher.shape[2:], strict=True)]
    pool = _POOLS[len(smaller) - 1]
    return pool(student, smaller), pool(teacher, smaller)


def _adapted(adapter: nn.Module, features: Tensor) -> Tensor:
    """Return features (n, channels, …) with the teacher's number of channels."""
    if isinstance(adapter, nn.Identity):
        return features
    wide: Tensor = adapter(features.flatten(2))  # (n, teacher's channels, positions)
    return wide.reshape(*wide.shape[:2], *features.shape[2:])


def _guide(teacher: nn.Module) -> nn.Module:
    """Return the net that shows its features: the teacher, or the first of several."""
    if not isinstance(teacher, Ensemble):
        return teacher
    first: nn.Module = teacher.teachers[0]
    return first
