"""Proof that channels can be removed: the narrow model must compute what the silenced one does.

A wrong guess about coupled channels (a reshape that mixes heads, a split at a fixed place) need
not raise an error: it may leave a model that runs and computes something else. So before a model
is touched, the removal is tried on a copy with random weights. What it leaves of every tensor is
read off by removing from tensors of running numbers. Then two models must agree: the narrow copy,
and the wide one in which everything that was removed is zero. Nothing is proven where that zero
can't be seen in the outputs; random weights of a size that shows and leaking rectifiers see to it
that no channel is dead.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fettle.compress.prune._groups import ChannelGraph, Group, forget
from fettle.compress.prune._neutral import Neutral
from fettle.train import first_output

Removal = Mapping[str, list[int]]
_ROUNDING, _NOISE = 1e-4, 1e-5  # of the effect, and of the outputs themselves


def provable(
    graph: ChannelGraph, groups: Collection[Group], removal: Removal
) -> dict[str, list[int]]:
    """Return the part of `removal` that is proven to leave a consistent model.

    Isomorphic groups stand and fall together where their first one falls.

    Args:
        graph: of the model, which stays as it is.
        groups: whose roots `removal` names.
        removal: by root, the channels that go.
    """
    trial = Trial(graph)
    if trial.holds(removal):
        return dict(removal)
    good: dict[str, list[int]] = {}
    for shape in dict.fromkeys(g.shape for g in groups if g.root in removal):
        alike = {g.root: removal[g.root] for g in groups if g.shape == shape and g.root in removal}
        for part in _parts(trial, alike):
            if trial.holds({**good, **part}):
                good.update(part)
    return good


def _parts(trial: Trial, alike: dict[str, list[int]]) -> Iterator[dict[str, list[int]]]:
    """Yield what to try of isomorphic groups: all, or each by itself if one alone holds."""
    if trial.holds(alike):
        yield alike
        return
    singles = [{root: channels} for root, channels in alike.items()]
    if len(singles) > 1 and (trial.holds(singles[0]) or trial.holds(singles[-1])):
        yield from (single for single in singles if trial.holds(single))


class Trial:
    """A copy of a model with random weights on which removals are tried and taken back."""

    def __init__(self, graph: ChannelGraph) -> None:
        model, self.inputs, self.plain = graph.model, graph.inputs, graph.plain
        self.model = copy.deepcopy(model).eval().requires_grad_(True)
        self.tied = _tied(self.model)
        _randomise(self.model)
        self.weights = {name: tensor.detach() for name, tensor in _floats(self.model)}
        self.outputs = self._run()
        while not torch.isfinite(self.outputs).all() and any(map(_large, self.weights.values())):
            for tensor in filter(_large, self.weights.values()):
                tensor.mul_(0.5)
            self.outputs = self._run()

    def holds(self, removal: Removal) -> bool:
        """Return whether removing equals silencing; the trial model is whole again afterwards."""
        whole = _Snapshot(self.model)
        try:
            left = self._remove(removal)
            narrow = self._run()
            tied = _tied(self.model)
        except Exception:  # whatever a library's guess may raise, it means no
            return False
        finally:
            whole.restore()
        if tied != self.tied or not all(kept.numel() for kept in left.values()):
            return False  # what is empty computes its bias
        return self._same(narrow, self._silenced(left))

    def _remove(self, removal: Removal) -> dict[str, Tensor]:
        """Remove; return by name which elements are left of each tensor that changed."""
        graph = ChannelGraph(self.model, self.inputs, self.plain)
        tensors = dict(_floats(self.model))
        for tensor in tensors.values():
            tensor.data = torch.arange(tensor.numel(), dtype=torch.float64).view(tensor.shape)
        try:
            for root, channels in removal.items():
                graph.remove(root, channels)
            left = {n: t.detach().long() for n, t in _floats(self.model) if t is not tensors[n]}
        finally:
            for name, tensor in tensors.items():
                tensor.data = self.weights[name]
        for name, tensor in _floats(self.model):
            if name in left:
                tensor.data = self.weights[name].flatten()[left[name]]
        return left

    def _silenced(self, left: Mapping[str, Tensor]) -> Tensor:
        tensors = dict(_floats(self.model))
        for name, kept in left.items():
            silent = torch.zeros_like(self.weights[name])
            silent.view(-1)[kept.flatten()] = self.weights[name].view(-1)[kept.flatten()]
            tensors[name].data = silent
        try:
            return self._run()
        finally:
            for name in left:
                tensors[name].data = self.weights[name]

    def _run(self) -> Tensor:
        forget(self.model)
        with torch.no_grad(), Neutral(), _slow_attention():
            return first_output(self.model(*self.inputs)).float()

    def _same(self, narrow: Tensor, silenced: Tensor) -> bool:
        if narrow.shape != silenced.shape or narrow.shape != self.outputs.shape:
            return False
        error = (narrow - silenced).abs().max()
        effect = (silenced - self.outputs).abs().max()
        noise = _NOISE * self.outputs.abs().max()
        return bool(effect > noise and error <= _ROUNDING * effect + noise)


class _Snapshot:
    """The parts of a model, by reference: pruning puts new tensors and numbers in their place."""

    def __init__(self, model: nn.Module) -> None:
        self.parts = [(m, dict(vars(m))) for m in model.modules()]
        self.tensors = [
            (m, dict(m._parameters), dict(m._buffers), dict(m._modules)) for m in model.modules()
        ]

    def restore(self) -> None:
        for module, attributes in self.parts:
            vars(module).clear()
            vars(module).update(attributes)
        for module, parameters, buffers, modules in self.tensors:
            _refill(module._parameters, parameters)
            _refill(module._buffers, buffers)
            _refill(module._modules, modules)


def _refill(held: Any, wanted: dict[str, Any]) -> None:
    held.clear()
    held.update(wanted)


class _slow_attention:  # noqa: N801  # it is used like a function
    """Within it `nn.MultiheadAttention` takes the road that reads its own numbers."""

    def __enter__(self) -> None:
        self.before = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)

    def __exit__(self, *_: object) -> None:
        torch.backends.mha.set_fastpath_enabled(self.before)


def _floats(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point():
            yield name, tensor


def _large(tensor: Tensor) -> bool:
    return tensor.ndim > 1 and bool(tensor.abs().max() > 1e-6)


def _tied(model: nn.Module) -> list[tuple[str, ...]]:
    """Return the names of each parameter that has several."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return sorted(tuple(each) for each in names.values() if len(each) > 1)


@torch.no_grad()
def _randomise(model: nn.Module) -> None:
    """Give every weight a size that shows: no zero scale or tiny factor may hide a mistake."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in _floats(model):
        if tensor.ndim > 1:
            fan = max(tensor[0].numel(), 1)
            gain = 0.5 if tensor.ndim == 2 else 2  # no norm holds transformers' sums down here
            fresh = torch.randn(tensor.shape, generator=generator) * (gain / fan) ** 0.5
        elif tensor.ndim == 1 or isinstance(tensor, nn.Parameter):
            fresh = torch.rand(tensor.shape, generator=generator) + 0.5
        else:
            continue
        if "bias" in name or name.endswith("running_mean"):
            fresh = fresh - 1
        tensor.data = fresh.to(tensor.dtype)
