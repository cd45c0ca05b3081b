"""Semi-structured pruning, 2:4: of four weights in a row, the two smaller become zero.

What it does: groups each four consecutive weights along the input channels, at the same output and
the same pixel of the kernel: the dimension that a sparse tensor core shortens. The two with the
smallest absolute values become zero, of equal ones the first; then the model is trained with these
zeros kept and with distillation from the model that came in. Layers whose input channels (of one
group) are no multiple of 4, such as first and depthwise convolutions, and transposed convolutions
stay dense, and are named.

When to use it: before TensorRT on an NVIDIA GPU since Ampere, with its sparsity switched on.

Expected effect: half of the weights; up to 2 × on those layers there. No engine for processors runs
it faster: elsewhere it is a size feature. Trained, it usually keeps the accuracy.

Papers: Mishra et al. 2021 (arXiv 2104.08378).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from fettle.compress._technique import Technique
from fettle.compress.prune import _unstructured as prune
from fettle.compress.prune._tuning import FineTuned
from fettle.core.errors import ModelError
from fettle.core.knobs import Choice
from fettle.tasks import Task

KEPT, GROUP = 2, 4


@dataclass(frozen=True, kw_only=True)
class SemiStructured(FineTuned, Technique):
    """2:4 sparsity along the input channels, with fine-tuning."""

    layers: Annotated[str, Choice(*prune.LAYERS), "which layers lose weights"] = "all"

    def requires(self, model: nn.Module, task: Task) -> None:
        """Refuse a model without a layer that has groups of four."""
        super().requires(model, task)
        weights = prune.prunable(model, self.layers)
        prune.check_prunable(self.name(), weights)
        if not _grouped(model, weights):
            raise ModelError(
                f"`{self.name()}` expects layers whose input channels are a multiple of {GROUP},"
                " and this model has none; use `prune.magnitude`"
            )

    def apply(self, model: nn.Module, task: Task) -> nn.Module:
        """Return the 2:4 sparse, fine-tuned model."""
        teacher = copy.deepcopy(model)
        weights = prune.prunable(model, self.layers)
        grouped = _grouped(model, weights)
        dense = [name for name in weights if name not in grouped]
        if dense:
            self.context.progress.say(f"no groups of {GROUP}, left dense: {', '.join(dense)}")
        prune.make_zero(grouped, {n: smaller_half(w.detach()) for n, w in grouped.items()})
        self.fine_tune(model, teacher, task, self.epochs)
        return model


def smaller_half(weight: Tensor) -> Tensor:
    """Return where the two smallest of each four along dimension 1 are, as True.

    Args:
        weight: shape (out, in, …), `in` a multiple of 4; other dimensions are the kernel's.
    """
    last = weight.abs().movedim(1, -1)  # (out, …, in)
    groups = last.reshape(*last.shape[:-1], -1, GROUP)  # (out, …, in / 4, 4)
    smallest = groups.argsort(dim=-1, stable=True)[..., : GROUP - KEPT]
    where = torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, smallest, True)
    return where.reshape(last.shape).movedim(-1, 1)


def _grouped(model: nn.Module, weights: prune.Weights) -> dict[str, nn.Parameter]:
    """Return the weights that have groups of four along their inputs.

    A transposed convolution's weight has its inputs in another dimension, which no engine's sparse
    kernel takes.
    """
    transposed = {
        id(module.weight)
        for module in model.modules()
        if isinstance(module, nn.modules.conv._ConvTransposeNd)
    }
    return {
        name: weight
        for name, weight in weights.items()
        if weight.shape[1] % GROUP == 0 and id(weight) not in transposed
    }
