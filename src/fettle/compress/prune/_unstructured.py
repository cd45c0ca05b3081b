"""Single weights: which layers can lose some, and which weights are the smallest."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from fettle.compress._technique import example_tensors
from fettle.core.errors import ModelError
from fettle.tasks import Task

Weights = Mapping[str, nn.Parameter]
_CONVOLUTIONS = (nn.modules.conv._ConvNd,)
_LINEAR = (nn.Linear, nn.MultiheadAttention)
_KINDS = {
    "all": (*_CONVOLUTIONS, *_LINEAR),
    "convolutions": _CONVOLUTIONS,
    "linear": _LINEAR,
}
LAYERS = tuple(_KINDS)
_OF_ITS_OWN = ("weight", "in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


def prunable(model: nn.Module, layers: str = "all") -> dict[str, nn.Parameter]:
    """Return the weights of convolutions and linear layers, each shared one once.

    Those of attention's own projections are among the linear ones; embeddings are not.
    """
    kinds, seen = _KINDS[layers], set[int]()
    found: dict[str, nn.Parameter] = {}
    for path, module in model.named_modules():
        own = module._parameters if isinstance(module, kinds) else {}
        for name in _OF_ITS_OWN:
            weight = own.get(name)
            if weight is not None and weight.numel() and id(weight) not in seen:
                seen.add(id(weight))
                found[f"{path}.{name}".lstrip(".")] = weight
    return found


def check_prunable(technique: str, weights: Weights) -> None:
    """Refuse a model without such weights, or whose weights have no order.

    Raises:
        ModelError: as the message says.
    """
    if not weights:
        raise ModelError(
            f"`{technique}` makes weights of convolutions and linear layers zero, and this model"
            " has none that it could prune; leave it out of the recipe"
        )
    for name, weight in weights.items():
        if not bool(torch.isfinite(weight).all()):
            raise ModelError(
                f"`{technique}` ranks weights by size, but `{name}` holds NaN or infinity; load"
                " sound weights"
            )


def smallest(weights: Weights, share: float, scope: str) -> dict[str, Tensor]:
    """Return where the smallest weights by magnitude are, as True.

    They are round(share · n) of the n weights of each layer, or of all together; of equal ones
    the first. Each layer keeps its largest weight, for an empty one would cut the network.

    Args:
        weights: by name.
        share: of the weights that become zero, 0 … 1; weights that are zero already are among them.
        scope: "layer" or "global".
    """
    sizes = {name: _protected(weight) for name, weight in weights.items()}
    if scope == "layer":
        return {name: _lowest(size, share).view_as(weights[name]) for name, size in sizes.items()}
    together = _lowest(torch.cat(list(sizes.values())), share)
    parts = torch.split(together, [size.numel() for size in sizes.values()])
    return {n: p.view_as(w) for (n, w), p in zip(weights.items(), parts, strict=True)}


@torch.no_grad()
def make_zero(weights: Weights, where: Mapping[str, Tensor]) -> None:
    """Set weights to zero, in place."""
    for name, zero in where.items():
        weights[name].masked_fill_(zero, 0)


def without_ends(model: nn.Module, task: Task, weights: Weights) -> dict[str, nn.Parameter]:
    """Return `weights` without those of the layers that run first and last on an example."""
    owners = {id(w): name for name, w in weights.items()}
    ran: list[str] = []

    def note(module: nn.Module, *_: object) -> None:
        ran.extend(owners[id(p)] for p in module._parameters.values() if id(p) in owners)

    handles = [module.register_forward_hook(note) for module in model.modules()]
    try:
        with torch.no_grad():
            model(*example_tensors(task))
    finally:
        for handle in handles:
            handle.remove()
    ends: Collection[str] = {*ran[:1], *ran[-1:]}
    return {name: weight for name, weight in weights.items() if name not in ends}


def _protected(weight: nn.Parameter) -> Tensor:
    """Return magnitudes, flat; the largest is infinite."""
    size = weight.detach().abs().flatten()
    size[size.argmax()] = torch.inf
    return size


def _lowest(sizes: Tensor, share: float) -> Tensor:
    """Mark round(share · n) of the lowest, but none that is infinite."""
    count = min(round(share * len(sizes)), int(torch.isfinite(sizes).sum()))
    lowest = torch.zeros(len(sizes), dtype=torch.bool, device=sizes.device)
    lowest[sizes.argsort(stable=True)[:count]] = True
    return lowest
