"""The seam of a technique: a torch module in, a smaller or faster one out."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import nn

from fettle.compress._plain import copied, make_plain
from fettle.compress._soundness import check_sound
from fettle.core.context import Context
from fettle.core.errors import CheckFailed, ModelError
from fettle.core.plugin import Plugin
from fettle.tasks import Task


@dataclass(frozen=True, kw_only=True)
class Technique(Plugin):
    """A way to compress a model; call it, implement `apply`.

    A call never changes the model that it is given. `context` says where the work happens (seed,
    checkpoints, progress); it is no knob, so it is neither printed nor hashed.

    `final` marks a technique whose result can't be compressed further: a converted graph.
    `takes_teacher` marks one that learns from the context's teacher, if there is one.
    """

    final: ClassVar[bool] = False
    takes_teacher: ClassVar[bool] = False

    context: Context = field(default_factory=Context, repr=False, compare=False)

    def __call__(self, model: nn.Module, task: Task) -> nn.Module:
        """Check, apply to a copy, check.

        Raises:
            ModelError: the technique can't work on this model.
            DataError: the task's inputs are no finite numbers.
            CheckFailed: what came out computes no finite outputs of the right shape.
        """
        with torch.random.fork_rng(devices=[]):  # torch's global generator is the caller's
            own = self._copied(model)
            self.requires(own, task)
            torch.manual_seed(self.context.seed)
            result = self.apply(own, task)
        self.ensures(result, task)
        return result

    def requires(self, model: nn.Module, task: Task) -> None:
        """Raise ModelError when the technique can't work on `model`."""
        if isinstance(model, torch.fx.GraphModule):
            raise ModelError(
                f"`{self.name()}` works on a plain torch module, but an earlier step has converted"
                " the model to a quantized graph; quantization comes last in a recipe"
            )
        check_sound(self.name(), model, task)

    @abstractmethod
    def apply(self, model: nn.Module, task: Task) -> nn.Module:
        """Return the compressed model; `model` is the technique's own copy, in evaluation mode."""

    def _copied(self, model: nn.Module) -> nn.Module:
        """Return a copy with plain weights, in evaluation mode; a graph is refused later on."""
        if isinstance(model, torch.fx.GraphModule):
            return model
        try:
            plain = copied(model).eval()
        except Exception as error:  # what torch, or a module's own code, says to being copied
            raise ModelError(
                f"`{self.name()}` works on a copy, and this model can't be copied ({error}); hold"
                " no tensors with a gradient's history in its modules"
            ) from error
        if names := make_plain(plain):
            self.context.progress.say(
                f"`{self.name()}` takes computed weights as they are now: {', '.join(names[:4])}"
                f"{' …' if len(names) > 4 else ''}"
            )
        return plain

    def ensures(self, model: nn.Module, task: Task) -> None:
        """Raise CheckFailed unless the outputs on example inputs are finite and well shaped."""
        outputs = run(model, task)
        classes = task.signature.classes
        expected = (len(outputs), classes) if classes else tuple(outputs.shape)
        if tuple(outputs.shape) != expected or not torch.isfinite(outputs).all():
            raise CheckFailed(
                f"`{self.name()}` made a model whose outputs on example inputs are not finite"
                f" numbers of shape {expected} but of shape {tuple(outputs.shape)}; try a gentler"
                " setting, or a lower learning rate"
            )

    def within(self, context: Context) -> Technique:
        """Return the same technique in other circumstances."""
        return self.but(context=context)


def example_tensors(task: Task, n: int = 2) -> tuple[torch.Tensor, ...]:
    """Return `n` example inputs of a task as tensors, in order."""
    return tuple(torch.from_numpy(array) for array in task.example_inputs(n).values())


@torch.no_grad()
def run(model: nn.Module, task: Task, n: int = 2) -> torch.Tensor:
    """Return the model's outputs on `n` example inputs, on the model's own device."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    outputs: torch.Tensor = model(*(t.to(device) for t in example_tensors(task, n)))
    return outputs
