"""Gradual pruning: a little more becomes zero at each step, and the model heals in between.

What it does: in `steps` steps the share of zero weights rises from `initial` to `sparsity`,
linearly or steeply first and gently at the end (`cubic`), s_t = s_f + (s_i − s_f)(1 − t/n)³. At
each step the smallest weights by absolute value go, and `epochs` epochs of training follow, with
all zeros kept and distillation from the model that came in. The learning rate falls once over all
steps (`rewind="none"`), or starts again at each (`"rate"`); with `"weights"` the weights that are
left also go back to what they were when they came in.

When to use it: for 50 … 95 % zeros, with training data and time; below, `prune.magnitude` does.

Expected effect: the same shapes, the same speed: no dense engine skips zeros, so this is a size
feature. Convolutional nets keep their accuracy to within a point up to about 70 … 80 %.

Each step has its own folder of checkpoints: what was killed goes on in the step where it was.

Papers: Zhu, Gupta 2017 (arXiv 1710.01878); rewinding: Frankle, Carbin 2019 (arXiv 1803.03635),
Renda, Frankle, Carbin 2020 (arXiv 2003.02389).
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import Annotated

from torch import nn

from fettle.compress._technique import Technique
from fettle.compress.prune import _unstructured as prune
from fettle.compress.prune._tuning import FineTuned
from fettle.core.context import Context
from fettle.core.errors import KnobError
from fettle.core.knobs import Choice, Range
from fettle.tasks import Task
from fettle.train import FitPlan, accuracy

_SEEDS_APART = 1_000_003


@dataclass(frozen=True, kw_only=True)
class Gradual(FineTuned, Technique):
    """Iterative magnitude pruning along a schedule."""

    sparsity: Annotated[float, Range(0, 0.99), "share of zero weights after the last step"] = 0.7
    initial: Annotated[float, Range(0, 0.99), "share of zero weights to start from"] = 0.0
    steps: Annotated[int, Range(1, 100), "how often weights are removed"] = 10
    schedule: Annotated[str, Choice("linear", "cubic"), "how the share rises"] = "linear"
    rewind: Annotated[
        str, Choice("none", "rate", "weights"), "what goes back to its start at each step"
    ] = "rate"
    scope: Annotated[str, Choice("layer", "global"), "where weights are compared"] = "layer"
    layers: Annotated[str, Choice(*prune.LAYERS), "which layers lose weights"] = "all"
    epochs: Annotated[int, Range(0, 1000), "passes over the data to fine-tune at each step"] = 5
    lr: Annotated[float, Range(1e-6, 1, log=True), "peak learning rate of the fine-tuning"] = 0.01

    def requires(self, model: nn.Module, task: Task) -> None:
        """Refuse a model without weights to prune, and a schedule that falls."""
        super().requires(model, task)
        prune.check_prunable(self.name(), prune.prunable(model, self.layers))
        if self.initial > self.sparsity:
            raise KnobError(
                f"`{self.name()}` can't give weights back: `initial` ({self.initial:g}) is expected"
                f" to be at most `sparsity` ({self.sparsity:g})"
            )

    def apply(self, model: nn.Module, task: Task) -> nn.Module:
        """Return the sparse model, trained after each step."""
        original = copy.deepcopy(model)
        for step, share in enumerate(self.shares(), start=1):
            self._remove(model, original, share)
            metric = self._train(model, original, task, step)
            self.context.progress.say(
                f"step {step}/{self.steps}: sparsity {share:.3f}, {task.metric} on select"
                f" {metric:.4f}"
            )
        return model

    def shares(self) -> list[float]:
        """Return the share of zeros after each step."""
        rise, power = self.sparsity - self.initial, {"linear": 1, "cubic": 3}[self.schedule]
        left = [1 - step / self.steps for step in range(1, self.steps + 1)]
        return [self.sparsity - rise * part**power for part in left]

    def plan(self, step: int) -> FitPlan:
        """Return how step `step`, counted from 1, trains."""
        plan = self.fitting(self.epochs)
        if self.rewind != "none":
            return plan
        start, end = (self._cooled(plan, done) for done in (step - 1, step))
        warmup = plan.warmup if step == 1 else 0.0
        return plan.but(lr=self.lr * start, floor=end / start, warmup=warmup)

    def _cooled(self, plan: FitPlan, done: int) -> float:
        """Return the factor on the learning rate after `done` steps: one cosine over all."""
        cosine = 0.5 * (1 + math.cos(math.pi * done / self.steps))
        return plan.floor + (1 - plan.floor) * cosine

    def _remove(self, model: nn.Module, original: nn.Module, share: float) -> None:
        weights = prune.prunable(model, self.layers)
        where = prune.smallest(weights, share, self.scope)
        if self.rewind == "weights":
            model.load_state_dict(original.state_dict())
        prune.make_zero(weights, where)

    def _train(self, model: nn.Module, original: nn.Module, task: Task, step: int) -> float:
        """Train one step's model; return its mean score on `select`."""
        if not self.epochs:
            return accuracy(model, task, "select")
        history = self.train(model, original, task, self.plan(step), self._context(step))
        return history.epochs[-1].metric or 0.0

    def _context(self, step: int) -> Context:
        """Return the step's own folder of checkpoints, and its own order of the data."""
        folder = self.context.checkpoints
        return replace(
            self.context,
            seed=self.context.seed + _SEEDS_APART * step,
            checkpoints=folder / f"step-{step:03d}" if folder else None,
        )
