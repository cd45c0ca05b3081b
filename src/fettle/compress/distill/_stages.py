"""Which feature map of a student corresponds to which of its teacher.

Both networks are run on an example, and what their submodules return is noted. In a convolutional
net a stage is the last feature map of each resolution; stages of equal resolution make a pair, and
where none is equal the last ones do, from the end. In a transformer, whose tokens keep their
number, it is the output of a block, paired by relative depth.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Size, Tensor, nn

from fettle.core.errors import ModelError

Shapes = dict[str, Size]
_MOST = 4
_FEW = 2  # resolutions that a transformer may have too: its patches, and its attention


@dataclass(frozen=True)
class Pair:
    """Paths of two submodules, and the widths of their feature maps."""

    student: str
    teacher: str
    widths: tuple[int, int]


def pairs_of(student: nn.Module, teacher: nn.Module, inputs: tuple[Tensor, ...]) -> list[Pair]:
    """Return the pairs of stages, at most four, the last of both nets among them.

    Raises:
        ModelError: one of them has no stages, or they are of different kinds.
    """
    found = [_stages(model, inputs) for model in (student, teacher)]
    if not found[0] or not found[1]:
        which = "student" if not found[0] else "teacher"
        raise ModelError(
            f"the {which} has no submodule that returns feature maps, so nothing can be paired;"
            " use `distill.logits`"
        )
    ranks = [len(next(iter(shapes.values()))) for shapes in found]
    if ranks[0] != ranks[1]:
        raise ModelError(
            "student and teacher were expected to have feature maps of one kind, got"
            f" {ranks[0]} and {ranks[1]} dimensions; use `distill.logits`"
        )
    match = _by_depth if ranks[0] == 3 and _is_flat(found) else _by_resolution
    chosen = match(*found)[-_MOST:]
    return [Pair(s, t, (channels(found[0][s]), channels(found[1][t]))) for s, t in chosen]


@contextmanager
def captured(model: nn.Module, paths: Collection[str]) -> Iterator[dict[str, Tensor]]:
    """Yield a dict in which each forward pass leaves what these submodules returned."""
    outputs: dict[str, Tensor] = {}

    def keep(path: str) -> Any:
        def hook(*call: Any) -> None:
            output = call[-1]
            tensor = output if isinstance(output, Tensor) else _first(output)
            if tensor is not None:
                outputs.pop(path, None)  # so that the order is that of the last calls
                outputs[path] = tensor

        return hook

    handles = [model.get_submodule(path).register_forward_hook(keep(path)) for path in paths]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def channels_first(features: Tensor) -> Tensor:
    """Return (n, channels, …): tokens (n, tokens, channels) are turned."""
    return features.transpose(1, 2) if features.ndim == 3 else features


def channels(shape: Size) -> int:
    """Return the width of a feature map of this shape."""
    return shape[2] if len(shape) == 3 else shape[1]


def _first(output: Any) -> Tensor | None:
    values = list(output.values()) if isinstance(output, Mapping) else output
    found = values[0] if isinstance(values, tuple | list) and values else None
    return found if isinstance(found, Tensor) else None


def _stages(model: nn.Module, inputs: tuple[Tensor, ...]) -> Shapes:
    """Return the candidates in the order in which they ended: maps, else a transformer's blocks."""
    paths = [path for path, _ in model.named_modules() if path]
    training = model.training
    with torch.no_grad(), captured(model.eval(), paths) as outputs:
        model(*inputs)
    model.train(training)
    shapes = {path: o.shape for path, o in outputs.items() if len(o) == len(inputs[0])}
    maps = _last_maps(_without_channels_last(model, shapes))
    if len(maps) > _FEW:
        return maps
    return _blocks(model, {path: s for path, s in shapes.items() if len(s) == 3}) or maps


def _last_maps(shapes: Shapes) -> Shapes:
    """Return the last feature map of each resolution.

    Of the least nested ones: a block that halves the resolution begins with the one before, and
    what it computes inside is no end of a stage.
    """
    chosen: dict[Size, str] = {}
    for path, shape in shapes.items():
        best = chosen.get(shape[2:])
        if best is None or path.count(".") <= best.count("."):
            chosen[shape[2:]] = path
    return {path: shape for path, shape in shapes.items() if chosen[shape[2:]] == path}


def _without_channels_last(model: nn.Module, shapes: Shapes) -> Shapes:
    """Return the maps, without those that have their channels in the last dimension (Swin)."""
    maps = {path: s for path, s in shapes.items() if len(s) > 3 and s[2:].numel() > 1}
    last = {
        shape[-1]
        for path, shape in maps.items()
        if type(model.get_submodule(path)) in (nn.LayerNorm, nn.Linear)
    }
    return {p: s for p, s in maps.items() if not (s[-1] in last and s[1] == s[2])}


def _blocks(model: nn.Module, shapes: Shapes) -> Shapes:
    """Return the outputs of the longest row of like submodules, such as a transformer's layers."""
    best: Shapes = {}
    for path, module in model.named_modules():
        if not isinstance(module, nn.ModuleList | nn.Sequential) or not len(module):
            continue
        if any(isinstance(part, nn.Conv1d) for part in module.modules()):
            continue  # whose channels come first
        children = [f"{path}.{name}".lstrip(".") for name, _ in module.named_children()]
        alike = len({type(child) for child in module.children()}) == 1
        if alike and len(children) > len(best) and all(child in shapes for child in children):
            best = {child: shapes[child] for child in children}
    return best


def _is_flat(found: list[Shapes]) -> bool:
    return all(len({shape[1] for shape in shapes.values()}) == 1 for shapes in found)


def _by_resolution(student: Shapes, teacher: Shapes) -> list[tuple[str, str]]:
    sizes = {shape[2:]: path for path, shape in teacher.items()}
    equal = [(path, sizes[s[2:]]) for path, s in student.items() if s[2:] in sizes]
    backwards = list(zip(reversed(student), reversed(teacher), strict=False))
    return equal or backwards[::-1]


def _by_depth(student: Shapes, teacher: Shapes) -> list[tuple[str, str]]:
    """Pair what ends after the same part of each net."""
    count = min(len(student), len(teacher), _MOST)
    rows = [
        [list(shapes)[-(-at * len(shapes) // count) - 1] for at in range(1, count + 1)]
        for shapes in (student, teacher)
    ]
    return list(zip(*rows, strict=True))
