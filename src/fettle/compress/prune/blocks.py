"""Block pruning: leave out whole residual blocks or encoder layers.

What it does: finds the blocks whose input goes around them (ResNets' blocks, encoder layers of
transformers), ranks them by what the outputs lose when one is skipped, removes the least
important `ratio` of them, measures batch norms' statistics anew, and trains what is left with
distillation from the model that came in. Blocks that change the shape stay.

When to use it: on deep networks, where latency follows depth: each block that goes takes its
whole time with it, on any engine, where thinner layers may save little.

Expected effect: time falls in proportion to the blocks; accuracy falls faster than with channels
unless there is fine-tuning. `kl` ranks best where much goes: a pretrained ResNet-56 on 600 images
of CIFAR-10 that it gets right keeps 90 % of them without 0.3 of its blocks and 77 % without half
(cosine 87 and 71, Taylor 75 and 55), with batch norms measured anew and no training.

Papers: Men et al., "ShortGPT", 2024 (arXiv 2403.03853: cosine); Veit et al., "Residual Networks
Behave Like Ensembles of Relatively Shallow Networks", NeurIPS 2016 (arXiv 1605.06431); Molchanov
et al. 2019 (Taylor, arXiv 1906.10771).
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fettle.compress._technique import Technique, example_tensors
from fettle.compress.prune._bn import restimate
from fettle.compress.prune._importance import gather_gradients
from fettle.compress.prune._residual import Call, calls_of, cosine, residual_blocks
from fettle.compress.prune._tuning import FineTuned
from fettle.core.arrays import Batch
from fettle.core.errors import ModelError
from fettle.core.knobs import Choice, Range
from fettle.tasks import Task
from fettle.train import device_of, first_output, inputs_of, refuse_nan

_BATCHES, _BATCH = 4, 64


@dataclass(frozen=True, kw_only=True)
class Blocks(FineTuned, Technique):
    """Removal of residual blocks and encoder layers, with fine-tuning."""

    ratio: Annotated[float, Range(0, 0.95), "fraction of the removable blocks removed"] = 0.3
    importance: Annotated[
        str,
        Choice("kl", "cosine", "taylor", "random"),
        "how far outputs move without the block, how far it moves its input, or the control",
    ] = "kl"
    bn_batches: Annotated[
        int, Range(0, 10_000), "batches of 256 that batch norms are measured anew on; 0 is never"
    ] = 8

    def requires(self, model: nn.Module, task: Task) -> None:
        """Refuse a model without removable blocks."""
        super().requires(model, task)
        if not residual_blocks(copy.deepcopy(model), self._inputs(model, task)):
            raise ModelError(
                f"`{self.name()}` leaves out blocks of one shape whose input goes around them, and"
                " this model has none in a sequence; use `prune.channels`, or distill into a"
                " shallower model"
            )

    def apply(self, model: nn.Module, task: Task) -> nn.Module:
        """Return the shallower, fine-tuned model."""
        teacher = copy.deepcopy(model)
        blocks = residual_blocks(model, self._inputs(model, task))
        scores = block_scores(model, task, blocks, self.importance)
        count = round(self.ratio * len(blocks))
        for path in sorted(blocks, key=lambda path: scores[path])[:count]:
            _replace(model, path, blocks[path].stand_in())
        if count and self.bn_batches:
            restimate(model, task, self.bn_batches)
        self.fine_tune(model, teacher, task, self.epochs)
        return model

    def _inputs(self, model: nn.Module, task: Task) -> tuple[Tensor, ...]:
        return tuple(t.to(device_of(model)) for t in example_tensors(task))


def block_scores(
    model: nn.Module, task: Task, blocks: dict[str, Call], importance: str
) -> dict[str, float]:
    """Return how much each block matters; the model is left as it was.

    kl: KL(outputs ‖ outputs without the block); cosine: 1 − cos(input, output) of the block;
    taylor: Σ |w · ∂L/∂w| over its weights; random: the control.
    """
    if importance == "random":
        return dict(zip(blocks, torch.rand(len(blocks)).tolist(), strict=True))
    if importance == "taylor":
        return _taylor(model, task, blocks)
    found = itertools.islice(task.batches("calibrate", _BATCH), _BATCHES)
    batches = [_sound(batch, task, device_of(model)) for batch in found]
    return (_shift if importance == "kl" else _turn)(model, blocks, batches)


def _sound(batch: Batch, task: Task, device: torch.device) -> tuple[Tensor, ...]:
    refuse_nan(batch.inputs)  # of which a score would be NaN, and any order as good as another
    return inputs_of(batch, task, device)


@torch.no_grad()
def _shift(
    model: nn.Module, blocks: dict[str, Call], batches: list[tuple[Tensor, ...]]
) -> dict[str, float]:
    whole = [_log_p(model, inputs) for inputs in batches]
    scores = {}
    for path, call in blocks.items():
        block = model.get_submodule(path)
        _replace(model, path, call.stand_in())
        try:
            without = [_log_p(model, inputs) for inputs in batches]
        finally:
            _replace(model, path, block)
        scores[path] = _mean(
            float(F.kl_div(q, p, reduction="batchmean", log_target=True))
            for p, q in zip(whole, without, strict=True)
        )
    return scores


@torch.no_grad()
def _turn(
    model: nn.Module, blocks: dict[str, Call], batches: list[tuple[Tensor, ...]]
) -> dict[str, float]:
    parts = {path: model.get_submodule(path) for path in blocks}
    calls = [calls_of(model, parts, inputs) for inputs in batches]
    return {
        path: _mean(1 - cosine(each[path].first, each[path].output) for each in calls)
        for path in blocks
    }


def _taylor(model: nn.Module, task: Task, blocks: dict[str, Call]) -> dict[str, float]:
    gather_gradients(model, task, _BATCHES, _BATCH)
    scores = {
        path: sum(
            float((p.detach() * p.grad).abs().sum())
            for p in model.get_submodule(path).parameters()
            if p.grad is not None
        )
        for path in blocks
    }
    model.zero_grad(set_to_none=True)
    return scores


def _log_p(model: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    return F.log_softmax(first_output(model.eval()(*inputs)).double(), dim=1)


def _replace(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, leaf = path.rpartition(".")
    model.get_submodule(parent)._modules[leaf] = module


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)
