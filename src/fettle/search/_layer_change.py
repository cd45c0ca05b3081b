"""Layers of the untouched model beside what became of them: which went, which got faster.

A layer keeps its name through pruning, and loses it where quantization captures the graph anew.
So layers are paired by name where names hold, else in order among those that survived, else by the
longest common run of layers of the same kind and shape.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from typing import Any

from fettle.measure.by_layer import LayerCost

Pair = tuple[LayerCost | None, LayerCost | None]


@dataclass(frozen=True)
class LayerChange:
    """One layer before and after; ms for one batch, None where there is no such layer."""

    layer: str
    op: str
    before_ms: float | None
    after_ms: float | None
    before_precision: str
    after_precision: str
    before_macs: int
    after_macs: int

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)


def changes(
    before: Sequence[LayerCost],
    after: Sequence[LayerCost],
    modules: Mapping[str, bool] | None = None,
) -> list[LayerChange]:
    """Return the layers in the untouched model's order, each with what became of it.

    Args:
        before: the untouched model's weighted layers.
        after: the winner's.
        modules: whether each module of the untouched model is left, by its path; empty where there
            are none to know.
    """
    known = modules or {}
    return [_change(pair, known) for pair in _paired(before, after, known)]


def _paired(
    before: Sequence[LayerCost], after: Sequence[LayerCost], modules: Mapping[str, bool]
) -> list[Pair]:
    by_name = {name: layer for layer in after for name in _lasting(layer)}
    named = [next((by_name[n] for n in _lasting(b) if n in by_name), None) for b in before]
    met = {id(layer) for layer in named if layer}
    if len(met) == len(after) == sum(layer is not None for layer in named):
        return list(zip(before, named, strict=True))
    left = [any(modules.get(n) for n in layer.names) or not modules for layer in before]
    if sum(left) == len(after):
        rest = iter(after)
        return [(b, next(rest) if stays else None) for b, stays in zip(before, left, strict=True)]
    return _by_kind(before, after)


def _lasting(layer: LayerCost) -> tuple[str, ...]:
    """Return the names that mean the same layer in another file: not those that are numbered."""
    return tuple(name for name in layer.names if not _numbered(name))


def _numbered(name: str) -> bool:
    """Say whether an exporter made a name up: `node_Conv_207`, `conv2d_5`, `conv2d`, `relu`."""
    return "." not in name and "/" not in name


def _by_kind(before: Sequence[LayerCost], after: Sequence[LayerCost]) -> list[Pair]:
    """Pair what stands in the same order and is of the same operator and place size."""
    were, are = ([(layer.op, layer.shape[2:]) for layer in side] for side in (before, after))
    pairs: list[Pair] = []
    for tag, i, j, k, m in SequenceMatcher(None, were, are, autojunk=False).get_opcodes():
        if tag == "equal":
            pairs += zip(before[i:j], after[k:m], strict=True)
        else:
            pairs += [(layer, None) for layer in before[i:j]]
            pairs += [(None, layer) for layer in after[k:m]]
    return pairs


def _change(pair: Pair, modules: Mapping[str, bool]) -> LayerChange:
    before, after = pair
    known = before or after
    assert known is not None
    return LayerChange(
        layer=title(known, modules),
        op=known.op,
        before_ms=before.ms if before else None,
        after_ms=after.ms if after else None,
        before_precision=before.precision if before else "",
        after_precision=after.precision if after else "",
        before_macs=before.macs if before else 0,
        after_macs=after.macs if after else 0,
    )


def title(layer: LayerCost, modules: Collection[str]) -> str:
    """Return what a person calls a layer: its module's path where that is known."""
    found = [name for name in layer.names if name in modules] or sorted(_lasting(layer), key=len)
    return found[0] if found else layer.name
