"""Which channels must go together: the dependency graph of Torch-Pruning behind our own words."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning as tp
from torch import nn

from fettle.compress.prune._shortcut import ShortcutPruner
from fettle.models.cifar import Shortcut

WEIGHTED = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


@dataclass(frozen=True)
class Group:
    """Channels of one width, in all layers that share it.

    Attributes:
        root: path of the layer whose output channels number the group's.
        width: how many there are.
        chunks: parts of equal size that must stay so (a grouped convolution's groups); channel i
            of each part goes together with channel i of all others.
        shape: the pattern of layers; groups of one pattern are isomorphic.
        members: Torch-Pruning's own group, of all channels.
    """

    root: str
    width: int
    chunks: int
    shape: str
    members: Any


class ChannelGraph:
    """The coupled channels of a model, traced once; removing some keeps it valid.

    Args:
        model: all its parameters are made to want gradients, for the trace goes along them.
        inputs: its arguments, batch first.
    """

    def __init__(self, model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        wanted = {name: p.requires_grad for name, p in model.named_parameters()}
        model.requires_grad_(True)
        self.model, self.head = model, last_weighted(model, inputs)
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")  # guesses that it warns of are proven or dropped
            self.graph = _trace(model, inputs)
        self.paths = {module: path for path, module in model.named_modules()}
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(wanted[name])

    def groups(self) -> list[Group]:
        """Return all groups but the one that makes the model's output."""
        found = self.graph.get_all_groups(
            ignored_layers=[self.head] if self.head else [], root_module_types=WEIGHTED
        )
        return [self._group(members) for members in found]

    def remove(self, root: str, channels: Sequence[int]) -> None:
        """Remove these channels of a group from every layer that has them, in place."""
        layer = self.model.get_submodule(root)
        prune = self.graph.get_pruner_of_module(layer).prune_out_channels
        wanted = {name: p.requires_grad for name, p in self.model.named_parameters()}
        self.graph.get_pruning_group(layer, prune, list(channels)).prune(record_history=False)
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(wanted[name])

    def _group(self, members: Any) -> Group:
        dep, indices = members[0]
        chunks = math.lcm(*(_chunks(each.target.module) for each, _ in members))
        shape = " ".join(
            f"{type(each.source.module).__name__}>{type(each.target.module).__name__}"
            f".{'out' if self.graph.is_out_channel_pruning_fn(each.handler) else 'in'}"
            for each, _ in members
        )
        return Group(self.paths[dep.target.module], len(indices), chunks, shape, members)


class _WithoutReshapes(tp.DependencyGraph):  # type: ignore[misc]  # torch_pruning is untyped
    """Takes every reshape for one that leaves channels alone."""

    def _build_dependency(self, module2node: Mapping[Any, Any]) -> None:
        for node in module2node.values():
            if node.type == tp.ops.OPTYPE.RESHAPE:
                node.type = tp.ops.OPTYPE.ELEMENTWISE
        super()._build_dependency(module2node)


def _trace(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> Any:
    how: dict[str, Any] = {
        "example_inputs": inputs,
        "forward_fn": lambda module, given: module(*given),
        "customized_pruners": {Shortcut: ShortcutPruner()},
        "verbose": False,
    }
    try:
        return tp.DependencyGraph().build_dependency(model, **how)
    except (ZeroDivisionError, TypeError, ValueError, IndexError):  # a shuffle of channels
        return _WithoutReshapes().build_dependency(model, **how)


def last_weighted(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> nn.Module | None:
    """Return the weighted layer that runs last: its width is the number of classes."""
    ran: list[nn.Module] = []
    layers = [m for m in model.modules() if isinstance(m, WEIGHTED)]
    handles = [m.register_forward_hook(lambda module, *_: ran.append(module)) for m in layers]
    try:
        with torch.no_grad():
            model(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return ran[-1] if ran else None


def _chunks(module: Any) -> int:
    if isinstance(module, nn.GroupNorm):
        return module.num_groups
    grouped = isinstance(module, WEIGHTED) and not isinstance(module, nn.Linear)
    if grouped and module.groups != module.out_channels:  # a depthwise one goes with its input
        return int(module.groups)
    return 1
