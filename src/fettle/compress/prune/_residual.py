"""Finding the blocks of a network that can be left out, because their input goes around them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fettle.models.bypass import Bypass

_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_ALIKE = 0.9


@dataclass(frozen=True)
class Call:
    """How a block was called, and what it returned.

    Attributes:
        args: by position.
        kwargs: by name.
        result: a tensor, or a tuple that starts with one.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any

    @property
    def first(self) -> Any:
        """The first argument."""
        return self.args[0] if self.args else next(iter(self.kwargs.values()), None)

    @property
    def output(self) -> Any:
        """What it returned, or the first part of that."""
        return self.result[0] if isinstance(self.result, tuple) and self.result else self.result

    @property
    def keeps_shape(self) -> bool:
        """Whether output and input are tensors of one shape and type."""
        x, y = self.first, self.output
        both = isinstance(x, Tensor) and isinstance(y, Tensor)
        return both and x.shape == y.shape and x.dtype == y.dtype and x.is_floating_point()

    def stand_in(self) -> nn.Module:
        """Return a module that can be called in the block's place."""
        if isinstance(self.result, tuple):
            return Bypass(len(self.result))
        return nn.Identity() if len(self.args) == 1 and not self.kwargs else Bypass()


@torch.no_grad()
def residual_blocks(model: nn.Module, inputs: tuple[Tensor, ...]) -> dict[str, Call]:
    """Return, by path, the blocks that can be left out, in the order in which they run.

    Such a block stands in an `nn.Sequential` or `nn.ModuleList`, runs once, keeps the shape, and
    passes its input on when all its weights but those of layer norms are zero. Of nested ones the
    innermost count.
    """
    calls = calls_of(model, dict(_listed(model)), inputs)
    good = {
        path: call
        for path, call in calls.items()
        if call.keeps_shape and _passes_on(model.get_submodule(path), call)
    }
    return {p: c for p, c in good.items() if not any(q.startswith(p + ".") for q in good)}


def _listed(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for path, parent in model.named_modules():
        if isinstance(parent, nn.Sequential | nn.ModuleList):
            for name, child in parent.named_children():
                inner = len(list(child.modules())) > 1
                if inner and next(child.parameters(), None) is not None:
                    yield f"{path}.{name}" if path else name, child


def calls_of(
    model: nn.Module, blocks: dict[str, nn.Module], inputs: tuple[Tensor, ...]
) -> dict[str, Call]:
    """Return, by path, the one call of each of `blocks` that runs once on `inputs`."""
    seen: dict[str, list[Call]] = {}

    def note(path: str) -> Any:
        def hook(_: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
            seen.setdefault(path, []).append(Call(args, dict(kwargs), result))

        return hook

    handles = [b.register_forward_hook(note(p), with_kwargs=True) for p, b in blocks.items()]
    try:
        model.eval()(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return {path: calls[0] for path, calls in seen.items() if len(calls) == 1}


def _passes_on(block: nn.Module, call: Call) -> bool:
    kept = {id(p) for m in block.modules() if isinstance(m, _NORMS) for p in m.parameters()}
    before = [(p, p.data) for p in block.parameters() if id(p) not in kept]
    try:
        for parameter, data in before:
            parameter.data = torch.zeros_like(data)
        result = block(*call.args, **call.kwargs)
    finally:
        for parameter, data in before:
            parameter.data = data
    output = result[0] if isinstance(result, tuple) else result
    return cosine(call.first, output) > _ALIKE


def cosine(x: Tensor, y: Tensor) -> float:
    """Return the mean cosine of the angle between examples of `x` and `y`, each (n, …)."""
    a, b = x.flatten(1).double(), y.flatten(1).double()
    return float(torch.nn.functional.cosine_similarity(a, b, dim=1).mean())
