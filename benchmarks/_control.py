"""The honest control of a pruned model: its shape with fresh weights, trained in the same way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from fettle.compress import Technique
from fettle.core.plugin import Plugin
from fettle.core.recipe import Recipe, parse_step
from fettle.tasks import Task

_PRUNES = "prune."


@dataclass(frozen=True, kw_only=True)
class Fresh(Technique):
    """Draws every weight anew, as if the network had just been built."""

    plugin_name: ClassVar[str] = "control.fresh"

    def apply(self, model: nn.Module, task: Task) -> nn.Module:
        """Reset every layer that can be."""
        del task
        for module in model.modules():
            reset = getattr(module, "reset_parameters", None)
            if reset is not None:
                reset()
        return model


def control_of(recipe: Recipe) -> Recipe | None:
    """Return a recipe whose pruned shape starts from fresh weights; None where nothing is pruned.

    What pruning itself would have trained for is made up for by distillation of as many epochs.
    """
    steps: list[Plugin] = []
    for step in recipe.steps:
        steps += _without_training(step) if step.name().startswith(_PRUNES) else [step]
    last = max((i for i, step in enumerate(steps) if step.name().startswith(_PRUNES)), default=None)
    if last is None:
        return None
    made_up = [step for step in steps[: last + 1] if step.name() == "distill.logits"]
    shape = [step for step in steps[: last + 1] if step.name().startswith(_PRUNES)]
    return Recipe((*shape, Fresh(), *made_up, *steps[last + 1 :]), recipe.runtime)


def _without_training(step: Plugin) -> list[Plugin]:
    """Return a pruning that doesn't train, and a distillation in its training's place."""
    epochs = getattr(step, "epochs", 0)
    if not epochs:
        return [step]
    return [step.but(epochs=0), parse_step(f"distill.logits(epochs={epochs})")]
