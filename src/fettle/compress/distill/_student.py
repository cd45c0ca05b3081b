"""Who learns from whom."""

from __future__ import annotations

import copy

from torch import nn

from fettle import models
from fettle.compress._soundness import check_sound
from fettle.compress._teacher import frozen
from fettle.core.context import Context
from fettle.tasks import Task


def teacher_and_student(
    model: nn.Module, task: Task, student: str, context: Context
) -> tuple[nn.Module, nn.Module]:
    """Return both: the context's teacher or else `model`, and a new `student` or else `model`.

    The teacher is a copy, for it will be frozen. A given one is copied once, so that it needn't
    answer twice.

    Raises:
        UnknownName: no model is called `student`.
    """
    given = context.teacher
    if given is not None:
        check_sound("teacher", given, task)
    teacher = copy.deepcopy(model) if given is None else frozen(given)
    if not student:
        return teacher, model
    return teacher, models.load(student, signature=task.signature, seed=context.seed)
