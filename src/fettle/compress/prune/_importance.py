"""How much the channels of a group matter: one score a channel, over all layers that share them.

    l1, l2    Σ |w|, Σ w² over the weights that would go: Li et al. 2017 (arXiv 1608.08710)
    taylor    |Σ w · ∂L/∂w|: Molchanov et al. 2019 (arXiv 1906.10771)
    fpgm      Σ ‖filter − other filters‖: He et al. 2019 (arXiv 1811.00250)
    bn_scale  |γ| of the batch norms: Liu et al. 2017 (arXiv 1708.06519)
    random    the control

Sums are averaged over the layers of a group, as DepGraph does (Fang et al. 2023), and divided by
the group's mean, so that groups can be compared.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn

from fettle.compress.prune._groups import Group
from fettle.core.arrays import Batch
from fettle.core.errors import ModelError
from fettle.tasks import Task
from fettle.train import device_of, first_output, inputs_of, refuse_nan

_WRITING = (
    tp.prune_conv_out_channels,
    tp.prune_linear_out_channels,
    tp.prune_depthwise_conv_out_channels,
)
KINDS = ("l2", "l1", "taylor", "fpgm", "bn_scale", "random")


def scorer(kind: str) -> Any:
    """Return a fresh scorer; Torch-Pruning's default arguments once leaked state."""
    makers: dict[str, Any] = {
        "l2": lambda: tp.importance.GroupMagnitudeImportance(p=2),
        "l1": lambda: tp.importance.GroupMagnitudeImportance(p=1),
        "taylor": lambda: tp.importance.GroupTaylorImportance(multivariable=True),
        "fpgm": lambda: _distances,
        "bn_scale": tp.importance.BNScaleImportance,
        "random": lambda: lambda group: torch.rand(len(group[0].idxs)),
    }
    return makers[kind]()


def scores_of(groups: Iterable[Group], how: Any) -> dict[str, Tensor]:
    """Return the scores of each group by its root, without groups whose channels don't match."""
    scores: dict[str, Tensor] = {}
    for group in groups:
        with suppress(IndexError, RuntimeError):  # a width that its layers don't have: mixers
            if group.width % group.chunks == 0:
                scores[group.root] = score(group, how)
    return scores


def score(group: Group, how: Any) -> Tensor:
    """Return the scores of a group in float64, shape (width / chunks,), each at least 0.

    A group that the scorer has nothing to say about (no batch norm in it) goes by its weights.
    """
    found = how(group.members)
    if found is None or len(found) != group.width or not torch.isfinite(found).all():
        found = tp.importance.GroupMagnitudeImportance(p=2)(group.members)
    if found is None or len(found) != group.width or not torch.isfinite(found).all():
        found = torch.ones(group.width)
    scores: Tensor = found.detach().double().cpu()
    return scores.view(group.chunks, -1).mean(0)


@torch.no_grad()
def _distances(members: Any) -> Tensor | None:
    """Return the distance of each channel's filters to all others, over the layers that write it.

    Torch-Pruning's own measures the distance of squared weights, in which w and −w are the same.
    """
    found = torch.zeros(len(members[0].idxs), dtype=torch.float64)
    writers = 0
    for item in members:
        if item.dep.handler in _WRITING:
            layer = item.dep.target.module
            weight = (
                layer.weight.transpose(0, 1) if getattr(layer, "transposed", 0) else layer.weight
            )
            rows = weight[item.idxs].flatten(1).double().cpu()
            found.index_add_(0, torch.tensor(item.root_idxs), torch.cdist(rows, rows).sum(1))
            writers += 1
    return found / found.mean() if writers else None


def backward(model: nn.Module, task: Task, batch: Batch) -> None:
    """Add the gradient of the loss on one batch to that of the parameters.

    Raises:
        DataError: the batch holds NaN or infinity.
        ModelError: there is no gradient, or it is not finite.
    """
    loss = task.loss(first_output(model(*inputs_of(batch, task, device_of(model)))), batch)
    if not torch.isfinite(loss):
        refuse_nan(batch.inputs)
        raise ModelError(
            f"importance by gradients needs a finite loss, and it is {loss.item()} on the training"
            " data; mend the model, or choose another `importance`"
        )
    if not loss.requires_grad:
        raise ModelError(
            "importance by gradients needs a model that has some, and none of its parameters wants"
            " one; call `model.requires_grad_(True)`, or choose another `importance`"
        )
    loss.backward()  # type: ignore[no-untyped-call]


def gather_gradients(model: nn.Module, task: Task, batches: int, batch_size: int) -> None:
    """Leave in every parameter the gradient of the loss over some batches of `train`."""
    model.zero_grad()
    for batch in itertools.islice(task.batches("train", batch_size), batches):
        backward(model, task, batch)
    for parameter in model.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
