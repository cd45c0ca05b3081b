"""Which channels must go together: the dependency graph of Torch-Pruning behind our own words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import nn

from fettle.compress.prune._coupling import GUESSES_THAT_FAIL, follow, trace

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
    """The coupled channels of a model; removing some keeps it valid.

    Args:
        model: is put into evaluation mode.
        inputs: its arguments, batch first.
        plain: take reshapes and slices for operations that leave channels alone, as is done by
            itself where channels can't be followed through them.
    """

    def __init__(
        self, model: nn.Module, inputs: tuple[torch.Tensor, ...], plain: bool = False
    ) -> None:
        self.model, self.inputs, self.plain = model, inputs, plain
        self.head = last_weighted(model, inputs)
        self.paths = {module: path for path, module in model.named_modules()}
        wanted = {name: p.requires_grad for name, p in model.named_parameters()}
        model.requires_grad_(True)
        try:
            self.graph = trace(model, inputs, plain)
        finally:
            forget(model)
            _want(model, wanted)

    @classmethod
    def of(cls, model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[Self, list[Group]]:
        """Return the graph of a model and its groups, followed as far as they can be."""
        try:
            graph = cls(model, inputs)
            return graph, graph.groups()
        except GUESSES_THAT_FAIL:
            graph = cls(model, inputs, plain=True)
            return graph, graph.groups()

    def groups(self) -> list[Group]:
        """Return all groups but the one that makes the model's output.

        A plain graph leaves out what it can't follow; another raises one of GUESSES_THAT_FAIL.
        """
        found: list[Group] = []
        seen = {id(self.head)}
        for layer in self.graph.module2node:
            if not isinstance(layer, WEIGHTED) or id(layer) in seen:
                continue
            every = range(self.graph.get_pruner_of_module(layer).get_out_channels(layer))
            try:
                members = follow(self.graph, layer, every)
            except GUESSES_THAT_FAIL:
                if self.plain:
                    continue
                raise
            narrowed = {id(each.target.module) for each, _ in members if self._is_output(each)}
            if id(self.head) not in narrowed:
                found.append(self._group(members))
            seen |= narrowed
        return found

    def remove(self, root: str, channels: Sequence[int]) -> None:
        """Remove these channels of a group from every layer that has them, in place."""
        wanted = {name: p.requires_grad for name, p in self.model.named_parameters()}
        follow(self.graph, self.model.get_submodule(root), channels).prune(record_history=False)
        _want(self.model, wanted)
        forget(self.model)

    def _is_output(self, dependency: Any) -> bool:
        return bool(self.graph.is_out_channel_pruning_fn(dependency.handler))

    def _group(self, members: Any) -> Group:
        dep, indices = members[0]
        chunks = math.lcm(*(_chunks(each.target.module) for each, _ in members))
        shape = " ".join(
            f"{type(each.source.module).__name__}>{type(each.target.module).__name__}"
            f".{'out' if self._is_output(each) else 'in'}"
            for each, _ in members
        )
        return Group(self.paths[dep.target.module], len(indices), chunks, shape, members)


def _want(model: nn.Module, wanted: Mapping[str, bool]) -> None:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(wanted[name])


def forget(model: nn.Module) -> None:
    """Empty what modules keep from one run to the next (attention biases of LeViT): it is old."""
    for module in model.modules():
        for name, kept in vars(module).items():
            tensors = isinstance(kept, dict) and any(map(torch.is_tensor, kept.values()))
            if tensors and not name.startswith("_"):
                kept.clear()


def last_weighted(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> nn.Module | None:
    """Return the weighted layer that runs last: its width is the number of classes."""
    ran = running_layers(model, inputs)
    return ran[-1] if ran else None


def idle_layers(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> list[str]:
    """Return the paths of the weighted layers that don't run on `inputs`: none can be followed."""
    ran = set(running_layers(model, inputs))
    every = model.named_modules()
    return [path for path, m in every if isinstance(m, WEIGHTED) and m not in ran]


def running_layers(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> list[nn.Module]:
    """Return the weighted layers in the order in which they run."""
    ran: list[nn.Module] = []
    layers = [m for m in model.modules() if isinstance(m, WEIGHTED)]
    handles = [m.register_forward_hook(lambda module, *_: ran.append(module)) for m in layers]
    try:
        with torch.no_grad():
            model(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return ran


def _chunks(module: Any) -> int:
    if isinstance(module, nn.GroupNorm):
        return module.num_groups
    grouped = isinstance(module, WEIGHTED) and not isinstance(module, nn.Linear)
    if grouped and module.groups != module.out_channels:  # a depthwise one goes with its input
        return int(module.groups)
    return 1
