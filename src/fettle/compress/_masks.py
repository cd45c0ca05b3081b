"""Weights that were pruned stay zero, whatever trains the model afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from fettle.core.errors import ModelError
from fettle.train import Hooks

OnStep = Callable[[nn.Module, int, int], None]


class KeepZeros:
    """A `Hooks.on_step` that puts weights back to zero after each optimizer step.

    Weights are parameters of two or more dimensions; those kept are the ones that were exactly
    zero in the model it was made of. So it is a function of that model alone, and a fit that
    continues from a checkpoint has the same zeros. Momentum and weight decay can't bring any back.

    A weight tensor that is zero throughout is one to be learned (fresh heads and class tokens
    start so), not a pruned one: it is left alone.
    """

    def __init__(self, zeros: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> None:
        """Take where zeros are, by parameter, and the shapes of all weights in order."""
        self.zeros, self.shapes = dict(zeros), dict(shapes)

    @classmethod
    def of(cls, model: nn.Module) -> KeepZeros:
        """Return what keeps the zeros that `model` has now."""
        found = {name: (p.detach() == 0).cpu() for name, p in weights_of(model)}
        pruned = {name: zero for name, zero in found.items() if zero.any() and not zero.all()}
        return cls(pruned, {name: p.shape for name, p in weights_of(model)})

    def __bool__(self) -> bool:
        """Whether there is any zero to keep."""
        return bool(self.zeros)

    @torch.no_grad()
    def __call__(self, model: nn.Module, step: int = 0, total: int = 0) -> None:
        """Put the weights of `model` back to zero: the model it was made of, or its graph.

        Raises:
            ModelError: the model's weights are others.
        """
        del step, total
        if not self.zeros:
            return
        for name, parameter in self._find(model).items():
            if name in self.zeros:
                zero = self.zeros[name] = self.zeros[name].to(parameter.device)
                parameter.masked_fill_(zero, 0)

    def _find(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the weights by the names that they had: found by name, else by their order."""
        found = dict(weights_of(model, every_name=True))
        for prefix in self._prefixes(found):
            here = {name: found.get(prefix + name) for name in self.shapes}
            if all(p is not None and p.shape == self.shapes[n] for n, p in here.items()):
                return {name: p for name, p in here.items() if p is not None}
        ordered = [p for _, p in weights_of(model)]
        if [p.shape for p in ordered] == list(self.shapes.values()):
            return dict(zip(self.shapes, ordered, strict=True))
        raise ModelError(
            f"the pruned weights {sorted(self.zeros)[:3]} … were expected in the model that is"
            " trained, but it has others; keep the zeros of the model that goes into the training"
        )

    def _prefixes(self, found: Mapping[str, Tensor]) -> list[str]:
        """Return what wrappers may have put before each name (`module.`), the shortest first."""
        first = next(iter(self.shapes))
        starts = {name.removesuffix(first) for name in found if name.endswith(first)}
        return sorted((s for s in starts if not s or s.endswith(".")), key=len)


@dataclass(frozen=True)
class EachStep:
    """A `Hooks.on_step` that does several things, one after the other."""

    parts: tuple[OnStep, ...]

    def __call__(self, model: nn.Module, step: int, total: int) -> None:
        """Do each."""
        for part in self.parts:
            part(model, step, total)


def with_zeros_kept(hooks: Hooks, model: nn.Module) -> Hooks:
    """Return `hooks` that also keep the zeros of `model`; the same if it has none.

    They are put back last, so that what else happens after a step can't fill them.
    """
    keep = KeepZeros.of(model)
    if not keep:
        return hooks
    on_step = EachStep((hooks.on_step, keep)) if hooks.on_step else keep
    return replace(hooks, on_step=on_step, key=f"{hooks.key} zeros kept".strip())


def weights_of(model: nn.Module, every_name: bool = False) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield name and parameter of each weight: what has two or more dimensions, none of it 0.

    A shared weight comes once, or with `every_name` under each of its names.
    """
    for name, parameter in model.named_parameters(remove_duplicate=not every_name):
        if parameter.ndim > 1 and parameter.numel():
            yield name, parameter
