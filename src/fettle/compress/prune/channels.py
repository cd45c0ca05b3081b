"""Channel pruning: remove whole output channels, and everything that depends on them.

What it does: ranks the groups of coupled channels (dependency graph of Torch-Pruning) by the L2
norm of their weights, removes the weakest `ratio` of each, so that the tensors really shrink, and
trains what is left with distillation from the model that came in.

When to use it: on convolutional nets with training data, where a dense engine must get faster.

Expected effect: about (1 − ratio)² of the multiply-adds; less of the time, because thin layers
are bound by memory and overhead. Channel counts are rounded to the engine's vector width, for an
unaligned count can be slower than the unpruned one.

Papers: Li et al. 2017 (arXiv 1608.08710); Fang et al., "DepGraph", CVPR 2023 (arXiv 2301.12900).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Annotated

import torch
import torch_pruning as tp
from torch import nn

from fettle.compress._distillation import Distillation, DistillingLoss
from fettle.compress._technique import Technique, example_tensors
from fettle.compress.prune._shortcut import ShortcutPruner
from fettle.core.errors import ModelError
from fettle.core.knobs import Choice, Range
from fettle.models.cifar import Shortcut
from fettle.tasks import Task
from fettle.train import FitPlan, Hooks, fit

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True, kw_only=True)
class Channels(Technique):
    """Structured pruning of channels by L2 group norm, with fine-tuning."""

    ratio: Annotated[float, Range(0, 0.95), "fraction of channels removed"] = 0.5
    round_to: Annotated[
        int, Choice(1, 2, 4, 8, 16, 32, 64), "channel counts stay multiples of this vector width"
    ] = 8
    epochs: Annotated[int, Range(0, 1000), "passes over the data to fine-tune"] = 10
    lr: Annotated[float, Range(1e-6, 1, log=True), "peak learning rate of the fine-tuning"] = 0.02
    optimizer: Annotated[str, Choice("sgd", "adamw"), "how weights are updated"] = "sgd"
    batch_size: Annotated[int, Range(1, 65536, "examples"), "examples a step"] = 64
    alpha: Annotated[float, Range(0, 1), "share of distillation from the unpruned model"] = 0.7
    temperature: Annotated[float, Range(1, 20), "temperature of that distillation"] = 3.0

    def requires(self, model: nn.Module, task: Task) -> None:
        """Refuse a model without convolutions."""
        super().requires(model, task)
        if not any(isinstance(module, _CONVOLUTIONS) for module in model.modules()):
            raise ModelError(
                f"`{self.name()}` removes channels of convolutions, and this model has none;"
                " leave it out of the recipe, or distill into a smaller model"
            )

    def apply(self, model: nn.Module, task: Task) -> nn.Module:
        """Return the narrower, fine-tuned model."""
        teacher = copy.deepcopy(model)
        remove_channels(model, example_tensors(task), self.ratio, self.round_to)
        if self.epochs:
            how = Distillation(self.alpha, self.temperature)
            plan = FitPlan(
                epochs=self.epochs, lr=self.lr, batch_size=self.batch_size, optimizer=self.optimizer
            )
            fit(model, task, plan, self.context, Hooks(loss=DistillingLoss(teacher, task, how)))
        return model


def remove_channels(
    model: nn.Module, inputs: tuple[torch.Tensor, ...], ratio: float, round_to: int
) -> None:
    """Remove the weakest `ratio` of each group's channels from `model`, in place.

    The layer that makes the model's output keeps its width.
    """
    if ratio == 0:
        return
    model.requires_grad_(True)  # the dependency graph is traced through gradients
    pruner = tp.pruner.BasePruner(
        model,
        inputs,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=ratio,
        round_to=round_to,
        ignored_layers=[_head(model, inputs)],
        root_module_types=[*_CONVOLUTIONS, nn.Linear],
        customized_pruners={Shortcut: ShortcutPruner()},
    )
    pruner.step()


def _head(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> nn.Module:
    """Return the weighted layer that runs last: its width is the number of classes."""
    ran: list[nn.Module] = []
    layers = [m for m in model.modules() if isinstance(m, (nn.Linear, *_CONVOLUTIONS))]
    handles = [m.register_forward_hook(lambda module, *_: ran.append(module)) for m in layers]
    with torch.no_grad():
        model(*inputs)
    for handle in handles:
        handle.remove()
    return ran[-1]
