"""Pruning of hidden layers: feed-forward networks lose neurons, all other widths stay.

What it does: finds the layers that only one linear layer writes and one reads (feed-forward
networks of transformers and mixers, hidden layers of classifiers), removes their weakest neurons,
and trains what is left with distillation from the model that came in. Each removal is proven
first, as in `prune.channels`.

When to use it: on transformers, whose residual width touches everything else: hidden layers hold
two thirds of an encoder's weights, and lose neurons without any other layer noticing.

Expected effect: about ratio of the hidden layers' multiply-adds, so half of that or more of an
encoder's; the accuracy that short fine-tuning doesn't bring back.

Papers: Li et al. 2017 (arXiv 1608.08710); Molchanov et al. 2019 (arXiv 1906.10771); McCarley et
al., "Structured Pruning of a BERT-based Question Answering Model", 2019 (arXiv 1910.06360).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Annotated

from torch import Tensor, nn

from fettle.compress._technique import Technique, example_tensors
from fettle.compress.prune._groups import Group
from fettle.compress.prune._importance import gather_gradients
from fettle.compress.prune._ranking import Ranking
from fettle.compress.prune._tuning import FineTuned
from fettle.compress.prune.channels import remove_channels, told
from fettle.core.errors import ModelError
from fettle.core.knobs import Choice, Range
from fettle.tasks import Task
from fettle.train import device_of

_GRADIENT_BATCHES, _BATCH = 8, 128


@dataclass(frozen=True, kw_only=True)
class Ffn(FineTuned, Technique):
    """Removal of neurons between two linear layers, with fine-tuning."""

    ratio: Annotated[float, Range(0, 0.95), "fraction of the neurons removed"] = 0.3
    importance: Annotated[
        str, Choice("l2", "l1", "taylor", "random"), "what says how much a neuron matters"
    ] = "taylor"
    ranking: Annotated[
        str, Choice("local", "global"), "the same share of each layer, or the weakest of all"
    ] = "local"
    round_to: Annotated[
        int, Choice(1, 2, 4, 8, 16, 32, 64), "widths stay multiples of this vector width"
    ] = 8

    def requires(self, model: nn.Module, task: Task) -> None:
        """Refuse a model without two linear layers."""
        super().requires(model, task)
        if sum(isinstance(module, nn.Linear) for module in model.modules()) < 2:
            raise ModelError(
                f"`{self.name()}` removes neurons between two linear layers, and this model has"
                " none; use `prune.channels`"
            )

    def apply(self, model: nn.Module, task: Task) -> nn.Module:
        """Return the model with narrower hidden layers, fine-tuned."""
        teacher = copy.deepcopy(model)
        if self.ratio:
            if self.importance == "taylor":
                gather_gradients(model, task, _GRADIENT_BATCHES, _BATCH)
            inputs = tuple(t.to(device_of(model)) for t in example_tensors(task))
            self._narrow(model, inputs)
            model.zero_grad(set_to_none=True)
        self.fine_tune(model, teacher, task, self.epochs)
        return model

    def _narrow(self, model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        ranking, kind = Ranking(self.ranking, self.round_to), self.importance
        try:
            wanted, gone = remove_channels(
                model, inputs, self.ratio, kind, ranking, only=is_hidden_layer
            )
        except ModelError as error:
            raise ModelError(str(error).replace("prune.channels", self.name())) from error
        self.context.progress.say(told(self.name(), self.round_to, wanted, gone))


def is_hidden_layer(group: Group) -> bool:
    """Whether one linear layer writes the group and one reads it."""
    weighted = [each.target.module for each, _ in group.members if _has_weights(each)]
    return len(weighted) == 2 and all(isinstance(module, nn.Linear) for module in weighted)


def _has_weights(dependency: object) -> bool:
    module = getattr(getattr(dependency, "target", None), "module", None)
    return isinstance(module, nn.Parameter) or (
        isinstance(module, nn.Module) and next(module.parameters(), None) is not None
    )
