"""Where a caller reaches into the fit loop: distillation, pruning schedules, quantization-aware.

With several devices hooks run in every process, so they must be picklable (functions of a module
or instances of its classes, no lambdas), and those that change the model must do the same in each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from fettle.core.arrays import Batch
from fettle.train.history import EpochRecord

Inputs = tuple[Tensor, ...]
Loss = Callable[[nn.Module, Inputs, Batch], Tensor]
SetMode = Callable[[nn.Module, bool], None]
Groups = list[dict[str, Any]]


def switch_mode(model: nn.Module, training: bool) -> None:
    """Put an ordinary module into training or evaluation mode."""
    model.train(training)


def keep_mode(model: nn.Module, training: bool) -> None:
    """Leave the mode alone: for exported graphs, which refuse `train()` and `eval()`."""
    del model, training


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What a caller may replace in the loop.

    Attributes:
        loss: `loss(model, inputs, batch)` returns a scalar; call the `model` that is passed in,
            it is the one that autocasts and averages gradients. The default is the task's loss.
        set_mode: `set_mode(model, training)`; pass your own for an exported GraphModule.
        on_step: `on_step(model, step, total)` after optimizer step `step`, counted from 1.
        on_epoch: `on_epoch(model, record)` after each epoch, in training mode. Changes that
            either makes to parameters and buffers are part of the checkpoint, nothing else is.
        parameters: returns the optimizer's groups; options left out of a group are the plan's,
            and a group's `lr` is its own peak.
        key: names what the hooks do; a checkpoint made with another key is not resumed.
    """

    loss: Loss | None = None
    set_mode: SetMode = switch_mode
    on_step: Callable[[nn.Module, int, int], None] | None = None
    on_epoch: Callable[[nn.Module, EpochRecord], None] | None = None
    parameters: Callable[[nn.Module], Groups] | None = None
    key: str = ""
