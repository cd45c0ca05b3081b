"""Torch-Pruning's graph of dependencies, traced and followed within bounds.

Its own walk compares whole lists of indices over and over, and on networks that cut and shift
their images (Swin) it never ends. This one visits each channel of each layer once.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from unittest.mock import patch

import torch
import torch_pruning as tp
from torch import nn
from torch_pruning._helpers import GroupItem, _HybridIndex
from torch_pruning.dependency import Group as Members
from torch_pruning.dependency import index_mapping
from torch_pruning.dependency.dependency import Dependency

from fettle.compress.prune._shortcut import ShortcutPruner
from fettle.models.cifar import Shortcut
from fettle.train import first_output

_TYPES = tp.ops.OPTYPE
_RENUMBERING = (_TYPES.RESHAPE, _TYPES.EXPAND, _TYPES.SLICE)
_MOST_INDICES = 200_000
GUESSES_THAT_FAIL = (ZeroDivisionError, TypeError, ValueError, IndexError, KeyError)


class _Plain(tp.DependencyGraph):  # type: ignore[misc]  # torch_pruning is untyped
    """Takes every reshape, expansion and slice for one that leaves channels alone."""

    def _build_dependency(self, module2node: Mapping[Any, Any]) -> None:
        for node in module2node.values():
            if node.type in _RENUMBERING:
                node.type = _TYPES.ELEMENTWISE
        super()._build_dependency(module2node)


def trace(model: nn.Module, inputs: tuple[torch.Tensor, ...], plain: bool) -> Any:
    """Return the dependency graph of a model whose parameters all want gradients.

    Args:
        model: in evaluation mode afterwards.
        inputs: its arguments.
        plain: take reshapes and slices for operations that leave channels alone.
    """
    kind = _Plain if plain else tp.DependencyGraph
    with _guessing(), torch.enable_grad():
        graph = kind().build_dependency(
            model,
            inputs,
            forward_fn=lambda module, given: first_output(module(*given)),
            customized_pruners={Shortcut: ShortcutPruner()},
            verbose=False,
        )
    for node in graph.module2node.values():
        if node.type in _RENUMBERING and not _renumbers(node):
            node.type = _TYPES.ELEMENTWISE  # else it is asked anew for every group
    return graph


@contextmanager
def _guessing() -> Iterator[None]:
    """Let Torch-Pruning guess quietly: what comes of a guess is proven or dropped.

    In deep networks it doesn't find the width of every part of a concatenation, and then adds
    nothing to a number; such a concatenation is left without a mapping.
    """
    concat = index_mapping.update_concat_index_mapping

    def careful(graph: Any, node: Any) -> None:
        with suppress(TypeError):
            concat(graph, node)

    with (
        warnings.catch_warnings(),
        patch.object(index_mapping, "update_concat_index_mapping", careful),
    ):
        warnings.simplefilter("ignore")
        yield


def follow(graph: Any, layer: nn.Module, channels: Sequence[int]) -> Any:
    """Return Torch-Pruning's group of what goes with output channels of `layer`.

    Raises:
        ValueError: their numbers multiply without end.
    """
    with _guessing():
        index_mapping.update_index_mapping(graph)
    prune = _output_pruning(graph, layer)
    root = graph.module2node[layer]
    first = Dependency(prune, prune, source=root, target=root)
    reached: dict[tuple[int, Any], tuple[Any, dict[int, int]]] = {}
    waiting = [(first, [_HybridIndex(idx=i, root_idx=i) for i in channels])]
    while waiting:
        dependency, indices = waiting.pop()
        key = (id(dependency.target), dependency.handler)
        known = reached.setdefault(key, (dependency, {}))[1]
        fresh = [i for i in indices if i.idx not in known]
        known.update({i.idx: i.root_idx for i in fresh})
        if len(known) > _MOST_INDICES:
            raise ValueError(f"the channels of {layer} can't be followed")
        if fresh:
            waiting += [(d, _map(d, fresh)) for d in _triggered(dependency)]
    return _members(graph, list(reached.values()))


def _members(graph: Any, reached: list[tuple[Any, dict[int, int]]]) -> Any:
    members = Members()
    for dependency, known in reached:
        if known:
            item = GroupItem(dep=dependency, idxs=list(known))
            item.root_idxs = list(known.values())
            members._group.append(item)
    members._DG = graph
    return members


def _triggered(dependency: Any) -> list[Any]:
    near = dependency.target.dependencies
    return [each for each in near if each.is_triggered_by(dependency.handler)]


def _map(dependency: Any, indices: list[Any]) -> list[Any]:
    for mapping in dependency.index_mapping:
        if mapping is not None:
            indices = mapping(indices)
    return indices


def _output_pruning(graph: Any, layer: nn.Module) -> Any:
    if getattr(layer, "groups", 1) == getattr(layer, "out_channels", 0) > 1:
        return tp.prune_depthwise_conv_out_channels
    return graph.get_pruner_of_module(layer).prune_out_channels


def _renumbers(node: Any) -> bool:
    """Whether channels change their numbers on the way through a node."""
    around = (node, *node.inputs, *node.outputs)
    return any(
        any(mapping is not None for mapping in each.index_mapping)
        for place in around
        for each in place.dependencies
        if node in (each.source, each.target)
    )
