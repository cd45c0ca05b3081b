"""The optimizer: which weights decay, and the learning rate of a step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.optim import Optimizer

from fettle.core.errors import InputError, ModelError
from fettle.train.hooks import Groups
from fettle.train.plan import FitPlan


def make_optimizer(
    model: nn.Module, plan: FitPlan, parameters: Callable[[nn.Module], Groups] | None
) -> Optimizer:
    """Return the plan's optimizer over the model's trainable parameters.

    Raises:
        InputError: nothing in the model can be trained.
        ModelError: a parameter is not float32.
    """
    check_trainable(model)
    groups = (parameters or decayed_or_not)(model)
    for group in groups:
        group.setdefault("lr", plan.lr)
        group.setdefault("weight_decay", plan.weight_decay)
        group["peak_lr"] = group["lr"]
    if plan.optimizer == "adamw":
        return torch.optim.AdamW(groups, betas=(plan.momentum, 0.999))
    return torch.optim.SGD(groups, momentum=plan.momentum, nesterov=plan.momentum > 0)


def decayed_or_not(model: nn.Module) -> Groups:
    """Split trainable parameters: weights, and those that don't decay.

    Biases, scales and shifts of norms, and quantizer scales have one dimension at most; going by
    that holds for exported graphs too, which have lost the types of their modules.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups: Groups = [
        {"params": [p for p in trainable if p.ndim > 1]},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def set_lr(optimizer: Optimizer, factor: float) -> float:
    """Set every group's learning rate to `factor` of its peak; return the first group's."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
    return float(optimizer.param_groups[0]["lr"])


def check_trainable(model: nn.Module) -> None:
    """Raise unless there is something to train, in 32 bits."""
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not trainable:
        raise InputError(
            "the model has no trainable parameter; call `model.requires_grad_(True)`, or set"
            " `epochs` to 0"
        )
    for name, parameter in trainable.items():
        if parameter.dtype != torch.float32:
            raise ModelError(
                f"training expects float32 parameters (mixed precision keeps them as master"
                f" weights), but `{name}` is {parameter.dtype}; call `model.float()` first"
            )
