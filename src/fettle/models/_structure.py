"""A module's shape as data, so that a pruned network can be built again.

Structured pruning changes shapes of parameters and whole numbers such as `out_channels`, and
never the code. Both are recorded by the path of each submodule; put into a freshly built network
of the same origin, they make it take the pruned weights. A submodule may also be gone, or be
replaced by `nn.Identity` or `Bypass`, as removing blocks does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fettle.core.errors import ModelError
from fettle.models.bypass import Bypass

Structure = dict[str, dict[str, Any]]
_MOST_ELEMENTS = 2**36


def structure(module: nn.Module) -> Structure:
    """Return, by the path of each submodule, its class, whole numbers and shapes (JSON values)."""
    return {path: _describe(part) for path, part in module.named_modules(remove_duplicate=False)}


def restructure(module: nn.Module, wanted: Mapping[str, Mapping[str, Any]]) -> nn.Module:
    """Give `module` the structure `wanted`, in place, and return it; changed weights are zeros.

    Raises:
        ModelError: the structure is not one of this architecture.
    """
    try:
        _match_tree(module, wanted)
        made: dict[int, nn.Parameter] = {}
        for path, part in module.named_modules(remove_duplicate=False):
            _set_numbers(part, wanted[path]["numbers"], path)
            _set_shapes(part, wanted[path]["shapes"], path, made)
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ModelError(f"a recorded structure can't be read ({error!r}); save anew") from error
    return module


def _describe(part: nn.Module) -> dict[str, Any]:
    return {
        "class": type(part).__name__,
        "numbers": dict(_numbers(part)),
        "shapes": {name: list(tensor.shape) for name, tensor in _tensors(part)},
    }


def _numbers(part: nn.Module) -> Iterator[tuple[str, int | list[int]]]:
    for name, value in vars(part).items():
        if name.startswith("_"):
            continue
        if _is_whole(value):
            yield name, value
        elif isinstance(value, tuple) and value and all(map(_is_whole, value)):
            yield name, list(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _tensors(part: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from part.named_parameters(recurse=False, remove_duplicate=False)
    yield from part.named_buffers(recurse=False, remove_duplicate=False)


def _match_tree(module: nn.Module, wanted: Mapping[str, Mapping[str, Any]]) -> None:
    """Drop what is gone, and put `nn.Identity` where the structure has it."""
    for path, part in list(module.named_modules(remove_duplicate=False)):
        parent, _, leaf = path.rpartition(".")
        if path and path not in wanted:
            _drop(module, parent, leaf)
        elif path and (stand_in := _stand_in(wanted[path], part)):
            module.get_submodule(parent)._modules[leaf] = stand_in
    paths = {path for path, _ in module.named_modules(remove_duplicate=False)}
    if strange := sorted(set(wanted) - paths):
        raise ModelError(
            f"the recorded structure has parts that this architecture lacks: {strange[:3]};"
            " rebuild the model that it was recorded from"
        )


def _stand_in(wanted: Mapping[str, Any], part: nn.Module) -> nn.Module | None:
    """Return what takes the place of a removed block, or None where the block stays."""
    made = {"Identity": nn.Identity, "Bypass": Bypass}.get(wanted["class"])
    return made() if made and type(part).__name__ != wanted["class"] else None


def _drop(module: nn.Module, parent: str, leaf: str) -> None:
    try:
        module.get_submodule(parent)._modules.pop(leaf, None)
    except AttributeError:  # its parent went before it
        return


def _set_numbers(part: nn.Module, numbers: Mapping[str, Any], path: str) -> None:
    has = dict(_numbers(part))
    for name, value in numbers.items():
        if name not in has or type(value) is not type(has[name]):
            raise ModelError(f"`{path}` has no whole number `{name}` to set to {value!r}")
        setattr(part, name, tuple(value) if isinstance(value, list) else value)


def _set_shapes(
    part: nn.Module, shapes: Mapping[str, Any], path: str, made: dict[int, nn.Parameter]
) -> None:
    has = dict(_tensors(part))
    if has.keys() != shapes.keys():
        raise ModelError(f"`{path}` has weights {sorted(has)}, recorded were {sorted(shapes)}")
    for name, old in has.items():
        if list(old.shape) != shapes[name]:
            _replace(part, name, old, _zeros(shapes[name], old), made)


def _zeros(shape: list[int], like: Tensor) -> Tensor:
    count = 1
    for size in shape:
        count *= size
    if not all(_is_whole(size) and size > 0 for size in shape) or count > _MOST_ELEMENTS:
        raise ModelError(f"a recorded shape {shape} is no shape; save the model anew")
    return torch.zeros(shape, dtype=like.dtype)


def _replace(
    part: nn.Module, name: str, old: Tensor, new: Tensor, made: dict[int, nn.Parameter]
) -> None:
    if isinstance(old, nn.Parameter):  # tied weights stay tied: one new one for each old one
        made.setdefault(id(old), nn.Parameter(new, old.requires_grad))
        part._parameters[name] = made[id(old)]
    else:
        part._buffers[name] = new
