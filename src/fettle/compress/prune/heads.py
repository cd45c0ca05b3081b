"""Head pruning: attention layers lose whole heads.

What it does: scores every head by how much the loss would change without it, takes out the least
important `ratio` of all heads in the model (each layer keeps at least one), checks that this
equals silencing them, and trains what is left with distillation from the model that came in.
Works on attention of timm's kind (one layer makes query, key and value) and of BERT's kind (three
layers); `nn.MultiheadAttention` ties its width to the model's, so that no head can leave it.

When to use it: on transformers with many heads and long inputs.

Expected effect: about ratio of attention's multiply-adds and of its memory, which is a third of an
encoder or more where inputs are long; many heads go without loss.

Papers: Michel, Levy, Neubig, "Are Sixteen Heads Really Better than One?", NeurIPS 2019 (arXiv
1905.10650).
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from fettle.compress._technique import Technique, example_tensors
from fettle.compress.prune._heads import Attention, attentions
from fettle.compress.prune._importance import backward
from fettle.compress.prune._tuning import FineTuned
from fettle.core.errors import ModelError
from fettle.core.knobs import Choice, Range
from fettle.tasks import Task
from fettle.train import device_of, first_output

_BATCHES, _BATCH = 8, 64


@dataclass(frozen=True, kw_only=True)
class Heads(FineTuned, Technique):
    """Removal of attention heads, with fine-tuning."""

    ratio: Annotated[float, Range(0, 0.95), "fraction of all heads removed"] = 0.3
    importance: Annotated[
        str, Choice("taylor", "l2", "random"), "what says how much a head matters"
    ] = "taylor"

    def requires(self, model: nn.Module, task: Task) -> None:
        """Refuse a model without heads that can leave."""
        super().requires(model, task)
        if not attentions(model):
            tied = any(isinstance(module, nn.MultiheadAttention) for module in model.modules())
            why = (
                "has `nn.MultiheadAttention`, whose heads together must be as wide as the model"
                if tied
                else "has none with several heads"
            )
            raise ModelError(
                f"`{self.name()}` takes heads out of attention layers of timm's and BERT's kind,"
                f" and this model {why}; use `prune.ffn`, `prune.blocks` or `prune.channels`"
            )

    def apply(self, model: nn.Module, task: Task) -> nn.Module:
        """Return the model with fewer heads, fine-tuned."""
        teacher = copy.deepcopy(model)
        layers = attentions(model)
        gone = choose(head_scores(model, task, layers, self.importance), self.ratio)
        inputs = tuple(t.to(device_of(model)) for t in example_tensors(task))
        self._take_out(model, inputs, layers, gone)
        self.fine_tune(model, teacher, task, self.epochs)
        return model

    @torch.no_grad()
    def _take_out(
        self,
        model: nn.Module,
        inputs: tuple[Tensor, ...],
        layers: Mapping[str, Attention],
        gone: Mapping[str, list[int]],
    ) -> None:
        for path, heads in gone.items():
            layers[path].silence(heads)
        expected = first_output(model.eval()(*inputs))
        for path, heads in gone.items():
            layers[path].remove(heads)
        try:
            same = torch.allclose(first_output(model(*inputs)), expected, rtol=1e-3, atol=1e-4)
        except RuntimeError:
            same = False
        if not same:
            raise ModelError(
                f"`{self.name()}` can't take heads out of this model: without them it computes"
                " something else than with silent ones; use `prune.ffn` or `prune.blocks`"
            )


def choose(scores: Mapping[str, Tensor], ratio: float) -> dict[str, list[int]]:
    """Return, by layer, the least important `ratio` of all heads; the best of a layer stays."""
    spare = [
        (float(score), path, head)
        for path, of_layer in scores.items()
        for head, score in enumerate(of_layer)
        if head != int(of_layer.argmax())
    ]
    count = round(ratio * sum(map(len, scores.values())))
    gone: dict[str, list[int]] = {}
    for _, path, head in sorted(spare)[:count]:
        gone.setdefault(path, []).append(head)
    return gone


def head_scores(
    model: nn.Module, task: Task, layers: Mapping[str, Attention], importance: str
) -> dict[str, Tensor]:
    """Return the scores of each layer's heads, shape (heads,), of length 1 in each layer.

    taylor: the mean over examples of |Σ a · ∂L/∂a| over a head's results a, which is the change
    of the loss to first order when the head falls silent; l2: Σ w²; random: the control.
    """
    if importance == "random":
        return {path: torch.rand(layer.heads) for path, layer in layers.items()}
    if importance == "l2":
        found = {path: layer.norms() for path, layer in layers.items()}
    else:
        found = _taylor(model, task, layers)
    return {path: scores / scores.norm().clamp(min=1e-30) for path, scores in found.items()}


def _taylor(model: nn.Module, task: Task, layers: Mapping[str, Attention]) -> dict[str, Tensor]:
    found = {path: torch.zeros(layer.heads, dtype=torch.float64) for path, layer in layers.items()}
    heard: dict[str, Tensor] = {}

    def listen(path: str) -> Any:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            heard[path] = args[0] if args[0].requires_grad else args[0].requires_grad_()
            heard[path].retain_grad()
            return args

        return hook

    handles = [x.reader.register_forward_pre_hook(listen(path)) for path, x in layers.items()]
    try:
        for batch in itertools.islice(task.batches("train", _BATCH), _BATCHES):
            backward(model.eval(), task, batch)
            for path, layer in layers.items():
                found[path] += _felt(heard[path], layer.heads)
    finally:
        for handle in handles:
            handle.remove()
        model.zero_grad(set_to_none=True)
    return found


def _felt(results: Tensor, heads: int) -> Tensor:
    """Return Σ over examples of |Σ a · ∂L/∂a|, of results (n, time, heads · width)."""
    if results.grad is None:
        return torch.zeros(heads, dtype=torch.float64)
    products = (results.detach() * results.grad).double()
    by_head = products.view(*products.shape[:-1], heads, -1)  # (n, …, heads, width)
    each: Tensor = by_head.sum(-1).flatten(1, -2).sum(1).abs()  # (n, heads)
    return each.sum(0).cpu()
