"""Modules that live in this process, by a name made of their contents.

A caller of the library may hold a module that no name builds. Its architecture is then copied from
the module itself, as long as the process lives; the name is a hash of its structure and weights, so
that the same module, given again by another process, is found to be the same.
"""

from __future__ import annotations

import copy

from torch import Tensor, nn

from fettle.core.errors import ModelError
from fettle.core.hashing import array_fingerprint, fingerprint
from fettle.models._origin import Origin

FAMILY = "live"
_KEPT: dict[str, nn.Module] = {}


def keep_live(module: nn.Module) -> str:
    """Keep a copy of `module`, and return the name under which `fettle.models.load` copies it.

    Raises:
        ModelError: it is no torch module, or can't be copied.

    Example:
        >>> keep_live(nn.Linear(2, 3)).startswith("live:Linear-")
        True
    """
    if not isinstance(module, nn.Module):
        raise ModelError(
            "a model's name, a path or a torch module was expected, got"
            f" {type(module).__name__}; see `fettle.models.load` for the names"
        )
    name = f"{type(module).__name__}-{_contents(module)}"
    try:
        _KEPT[name] = copy.deepcopy(module).cpu().eval()
    except (RuntimeError, TypeError) as error:
        raise ModelError(
            f"this {type(module).__name__} can't be copied ({error}); give a function that builds"
            " it, as `path/file.py:function`, with its weights in a file"
        ) from error
    return f"{FAMILY}:{name}"


def build(name: str, origin: Origin, pretrained: bool) -> nn.Module:
    """Return a copy of the module that was kept under `name`, weights and all.

    Raises:
        ModelError: this process holds no such module.
    """
    del origin, pretrained
    if name not in _KEPT:
        raise ModelError(
            f"`{FAMILY}:{name}` lived in another process; give the same module again, or a name"
            " that builds it, such as `path/file.py:function`"
        )
    return copy.deepcopy(_KEPT[name])


def _contents(module: nn.Module) -> str:
    state = module.state_dict()
    arrays = [v.detach().cpu().float().numpy() for v in state.values() if isinstance(v, Tensor)]
    return fingerprint([repr(module), sorted(state), array_fingerprint(*arrays)])
