"""Weights that are computed anew at each call become plain ones.

Weight norm, spectral norm, torch's own pruning masks and other parametrizations are there for the
training that is over. A technique would not find such weights, or overwrite what isn't read.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm


def copied(model: nn.Module) -> nn.Module:
    """Return a copy of `model`, of what tensors with a gradient's history hold only the numbers."""
    held = [value for module in model.modules() for value in vars(module).values()]
    memo = {
        id(value): value.detach().clone()
        for value in held
        if isinstance(value, Tensor) and not value.is_leaf
    }
    return copy.deepcopy(model, memo)


@torch.no_grad()
def make_plain(model: nn.Module) -> list[str]:
    """Make computed weights of `model`, in evaluation mode, plain in place; return their names.

    What it computes stays the same; zeros of masks are zeros of the weights.
    """
    found = []
    for path, module in list(model.named_modules()):
        names = [*_fix_parametrized(module), *_fix_hooked(module)]
        found += [f"{path}.{name}".lstrip(".") for name in names]
    return found


def _fix_parametrized(module: nn.Module) -> list[str]:
    """Do what `remove_parametrizations` does, which would spoil the model that was copied.

    It deletes a property of the module's class, and a copy has the same class.
    """
    if not parametrize.is_parametrized(module):
        return []
    made = module._modules["parametrizations"]
    assert isinstance(made, nn.ModuleDict)
    values = {name: getattr(module, name).detach().clone() for name in made}
    trained = {name for name, part in made.items() if any(True for _ in part.parameters())}
    module.__class__ = type(module).__bases__[0]
    del module._modules["parametrizations"]
    for name, value in values.items():
        if name in trained:
            module.register_parameter(name, nn.Parameter(value))
        else:
            module.register_buffer(name, value)
    return list(values)


def _fix_hooked(module: nn.Module) -> list[str]:
    """Do so with the older kind, whose weights a hook computes."""
    names = []
    for hook in list(module._forward_pre_hooks.values()):
        if isinstance(hook, WeightNorm):
            names.append(hook.name)
            remove_weight_norm(module, hook.name)
        elif isinstance(hook, SpectralNorm):
            names.append(hook.name)
            remove_spectral_norm(module, hook.name)
        elif isinstance(hook, prune.BasePruningMethod):
            names.append(hook._tensor_name)
            prune.remove(module, hook._tensor_name)  # type: ignore[no-untyped-call]
    return names
