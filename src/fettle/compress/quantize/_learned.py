"""Learned step sizes (LSQ): the scale of a fake quantizer is a parameter.

    x̂ = s · clamp(round(x / s), −Qn, Qp)

    ∂x̂/∂s = round(x / s) − x / s    where −Qn < x / s < Qp,    else −Qn or Qp
    ∂x̂/∂x = 1                       where −Qn ≤ x / s ≤ Qp,    else 0

(torch's kernel asks where the rounded x / s lies: half a step further out.)

Esser, McKinstry, Bablani, Appuswamy, Modha: "Learned Step Size Quantization", ICLR 2020
(arXiv 1902.08153).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torchao.quantization.pt2e import LearnableFakeQuantize

from fettle.train.hooks import Groups

# Scales are a hundred times smaller than weights; each sees the gradient of a whole tensor.
SCALE_LR = 1e-5


class LearnedScale(LearnableFakeQuantize):  # type: ignore[misc]  # torchao is untyped
    """A symmetric fake quantizer with a learned scale, after it has observed some batches.

    Args:
        eps: the smallest scale.
        options: of torchao's `LearnableFakeQuantize`.
    """

    def __init__(self, eps: float, **options: Any) -> None:
        super().__init__(eps=eps, **options)
        self.eps.fill_(eps)

    def learn(self) -> None:
        """Make the observed scale a parameter that is trained; the zero point stays 0."""
        self.enable_range_learning()
        self.zero_point.requires_grad = False


def learn_scales(prepared: nn.Module) -> None:
    """Let every scale of a prepared and calibrated graph learn."""
    for module in prepared.modules():
        if isinstance(module, LearnedScale):
            module.learn()


def with_scales(model: nn.Module) -> Groups:
    """Return the optimizer's groups: weights, then biases and norms, then scales.

    Only weights decay.
    """
    scales = [m.scale for m in model.modules() if isinstance(m, LearnedScale)]
    known = {id(scale) for scale in scales}
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in known]
    groups: Groups = [
        {"params": [p for p in others if p.ndim > 1]},
        {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
        {"params": scales, "lr": SCALE_LR, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


class KeepPositive:
    """An `on_step` hook: no scale may reach zero, where it would have no gradient."""

    def __call__(self, model: nn.Module, step: int, total: int) -> None:
        """Clamp the scales after optimizer step `step` of `total`."""
        del step, total
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, LearnedScale):
                    module.scale.clamp_(min=float(module.eps))
