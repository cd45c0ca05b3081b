"""Magnitude pruning: the smallest weights become zero, for good.

What it does: of each convolution and linear layer, or of all together (`scope`), the `sparsity`
share of weights with the smallest absolute values becomes exactly zero; of equal ones the first,
and no layer loses its largest weight. Then the model is trained with these zeros kept and with
distillation from the model that came in. Every layer takes part, the first and the last too, unless
`keep_ends` leaves those two alone.

When to use it: where the file is stored or sent compressed, or before hardware with sparse kernels;
up to half of the weights, often without any training. For more, `prune.gradual` loses less.

Expected effect: the same shapes, the same speed: no dense engine skips zeros, so this is a size
feature. A zipped file shrinks nearly with the share of zeros. 30 % costs some tenths of a point.

Papers: Han et al. 2015 (arXiv 1506.02626); Blalock et al. 2020 (arXiv 2003.03033).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Annotated

from torch import nn

from fettle.compress._technique import Technique
from fettle.compress.prune import _unstructured as prune
from fettle.compress.prune._tuning import FineTuned
from fettle.core.knobs import Choice, Range
from fettle.tasks import Task


@dataclass(frozen=True, kw_only=True)
class Magnitude(FineTuned, Technique):
    """Unstructured pruning by absolute value, with fine-tuning."""

    sparsity: Annotated[float, Range(0, 0.99), "share of the weights that become zero"] = 0.3
    scope: Annotated[str, Choice("layer", "global"), "where weights are compared"] = "layer"
    layers: Annotated[str, Choice(*prune.LAYERS), "which layers lose weights"] = "all"
    keep_ends: Annotated[bool, Choice(False, True), "leave first and last layer dense"] = False
    epochs: Annotated[int, Range(0, 1000), "passes over the data to fine-tune"] = 5
    lr: Annotated[float, Range(1e-6, 1, log=True), "peak learning rate of the fine-tuning"] = 0.01

    def requires(self, model: nn.Module, task: Task) -> None:
        """Refuse a model without weights to prune."""
        super().requires(model, task)
        prune.check_prunable(self.name(), self._weights(model, task))

    def apply(self, model: nn.Module, task: Task) -> nn.Module:
        """Return the sparse, fine-tuned model."""
        teacher = copy.deepcopy(model)
        weights = self._weights(model, task)
        prune.make_zero(weights, prune.smallest(weights, self.sparsity, self.scope))
        self.fine_tune(model, teacher, task, self.epochs)
        return model

    def _weights(self, model: nn.Module, task: Task) -> prune.Weights:
        weights = prune.prunable(model, self.layers)
        return prune.without_ends(model, task, weights) if self.keep_ends else weights
