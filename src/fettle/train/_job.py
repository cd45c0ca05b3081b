"""Everything that a fit is about, as one value."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from fettle.core.context import Context
from fettle.tasks import Task
from fettle.train.hooks import Hooks
from fettle.train.plan import FitPlan


@dataclass(frozen=True)
class Job:
    """A model to fit to a task by a plan."""

    model: nn.Module
    task: Task
    plan: FitPlan
    context: Context
    hooks: Hooks
    validate: bool
