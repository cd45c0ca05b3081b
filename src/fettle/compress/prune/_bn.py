"""Batch norms' running statistics, measured anew after channels are gone.

Wu, Johnson: "Rethinking Batch in BatchNorm", 2021 (arXiv 2105.07576): the statistics of the whole
population are taken from sums over all examples, not from a moving average.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fettle.tasks import Task
from fettle.train import device_of, inputs_of, refuse_nan


class _Sums:
    """Count, sum and sum of squares of each channel, in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.total: Any = 0.0
        self.squares: Any = 0.0

    def __call__(self, norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        del norm
        x = inputs[0].detach().double().transpose(0, 1).flatten(1)  # (channels, n)
        self.count += x.shape[1]
        self.total, self.squares = self.total + x.sum(1), self.squares + x.pow(2).sum(1)

    def write(self, norm: _BatchNorm) -> None:
        """Put mean and unbiased variance into the norm, unless all it saw was constant."""
        if self.count < 2 or norm.running_mean is None or norm.running_var is None:
            return
        mean = self.total / self.count
        variance = (self.squares - self.count * mean.pow(2)).clamp(min=0) / (self.count - 1)
        if not variance.any():  # a norm would divide by nothing but its ε
            return
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)


@torch.no_grad()
def restimate(model: nn.Module, task: Task, batches: int, batch_size: int = 256) -> None:
    """Measure the statistics of all batch norms on the first batches of `train`, in place.

    While it measures, each norm standardises by its own batch, so that errors of earlier layers
    don't reach later ones. A batch of one example has no spread and is left out.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    sums = {norm: _Sums() for norm in norms}
    modes = {module: module.training for module in model.modules()}
    kept = {norm: _statistics(norm) for norm in norms}
    handles = [norm.register_forward_pre_hook(sums[norm]) for norm in norms]
    model.eval()
    for norm in norms:
        norm.train()
    try:
        for batch in itertools.islice(task.batches("train", batch_size), batches if norms else 0):
            refuse_nan(batch.inputs)  # which would get into all statistics
            if len(next(iter(batch.inputs.values()))) > 1:
                model(*inputs_of(batch, task, device_of(model)))
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    for norm in norms:
        for name, tensor in kept[norm].items():
            getattr(norm, name).copy_(tensor)
        sums[norm].write(norm)


def _statistics(norm: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in norm.named_buffers(recurse=False)}
