"""What of a model can go, by name: widths of coupled channels, and whole blocks."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping

from torch import Tensor, nn

from fettle.compress.prune._groups import WEIGHTED, ChannelGraph, Group, running_layers
from fettle.compress.prune._importance import scorer, scores_of
from fettle.compress.prune._proof import provable
from fettle.compress.prune._ranking import Ranking, weakest
from fettle.compress.prune._residual import Call, residual_blocks
from fettle.core.errors import ModelError, UnknownName


def running(model: nn.Module, inputs: tuple[Tensor, ...]) -> dict[str, tuple[int, ...]]:
    """Return the shape of each layer's weight by its path, in the order in which they run."""
    paths = {module: path for path, module in model.named_modules()}
    return {
        paths[module]: tuple(module.weight.shape)
        for module in running_layers(model, inputs)
        if isinstance(module.weight, Tensor)
    }


class Parts:
    """The groups of channels and the blocks of one model, which it removes in place.

    A group bears the path of the layer that numbers its channels, its root.

    Args:
        model: is put into evaluation mode.
        inputs: its arguments, batch first.
        round_to: widths stay multiples of this.
    """

    def __init__(self, model: nn.Module, inputs: tuple[Tensor, ...], round_to: int = 8) -> None:
        self.model, self.inputs = model, inputs
        self.blocks: dict[str, Call] = residual_blocks(model, inputs)
        self.graph, groups = ChannelGraph.of(model, inputs)
        self.groups: dict[str, Group] = {group.root: group for group in groups}
        self.round_to = round_to
        self._ranking = Ranking("local", round_to)

    def width(self, root: str, share: float = 1.0) -> int:
        """Return how many channels of a group are left when `share` of them is wanted."""
        group = self.groups[root]
        return self._ranking.width(share * group.width, group)

    def narrowable(self) -> list[str]:
        """Return the roots of the groups whose half is proven to be removable, each by itself."""
        wanted = self._weakest(dict.fromkeys(self.groups, 0.5), "l2", strict=False)
        return list(provable(self.graph, self.groups.values(), wanted)) if wanted else []

    def ends(self) -> tuple[dict[str, str], dict[str, str]]:
        """Return, by layer, the root of the group that it reads, and of the one that it makes."""
        reads: dict[str, str] = {}
        makes: dict[str, str] = {}
        for root, group in self.groups.items():
            for item in group.members:
                layer = item.dep.target.module
                if isinstance(layer, WEIGHTED):
                    made = self.graph.graph.is_out_channel_pruning_fn(item.dep.handler)
                    (makes if made else reads)[self.graph.paths[layer]] = root
        return reads, makes

    def narrow(self, shares: Mapping[str, float], importance: str = "l2") -> bool:
        """Leave each named group the strongest `share` of its channels; say whether any went.

        Raises:
            UnknownName: no group of that name.
            ModelError: what can't be removed without changing what is computed.
        """
        wanted = self._weakest(self._known(shares), importance)
        gone = provable(self.graph, self.groups.values(), wanted) if wanted else {}
        stuck = [root for root in wanted if root not in gone]
        if stuck:
            raise ModelError(
                f"channels of {', '.join(f'`{root}`' for root in stuck)} can't be removed without"
                " changing what is computed; leave them out of `widths`"
            )
        self._remove(self.graph, gone)
        return bool(gone)

    def drop(self, paths: Collection[str]) -> None:
        """Leave out the named blocks.

        Raises:
            UnknownName: no removable block of that name.
        """
        for path in paths:
            if path not in self.blocks:
                raise UnknownName("removable block", path, self.blocks)
        for path in paths:
            parent, _, leaf = path.rpartition(".")
            self.model.get_submodule(parent)._modules[leaf] = self.blocks[path].stand_in()

    def without(self, shares: Mapping[str, float], paths: Collection[str] = ()) -> nn.Module:
        """Return a copy without these parts, unproven; this model stays as it is."""
        model = copy.deepcopy(self.model)
        if shares:
            wanted = self._weakest(self._known(shares), "l2")
            graph, _ = ChannelGraph.of(model, self.inputs)
            self._remove(graph, wanted)
        for path in paths:
            parent, _, leaf = path.rpartition(".")
            model.get_submodule(parent)._modules[leaf] = self.blocks[path].stand_in()
        return model

    def _remove(self, graph: ChannelGraph, gone: Mapping[str, list[int]]) -> None:
        """Remove channels; refuse where others that hang on them went along."""
        for root, channels in gone.items():
            graph.remove(root, channels)
            weight = graph.model.get_submodule(root).weight
            assert isinstance(weight, Tensor)
            left = self.groups[root].width - len(channels)
            if left not in weight.shape[:2]:
                raise ModelError(
                    f"`{root}` was to keep {left} channels, and others that hang on those that go"
                    f" went along: its weight is left with {list(weight.shape)}; leave it out of"
                    " `widths`"
                )

    def _weakest(
        self, shares: Mapping[str, float], importance: str, strict: bool = True
    ) -> dict[str, list[int]]:
        """Return, by root, the channels that go; of a group whose channels don't match, none."""
        groups = [self.groups[root] for root in shares]
        scores = scores_of(groups, scorer(importance))
        unmatched = [root for root in shares if root not in scores]
        if unmatched and strict:
            raise ModelError(
                f"the channels of `{unmatched[0]}` can't be followed through the model; leave it"
                " out of `widths`"
            )
        counts = {
            root: (self.groups[root].width - self.width(root, shares[root]))
            // self.groups[root].chunks
            for root in scores
        }
        return {
            root: weakest(scores[root], count, self.groups[root].chunks)
            for root, count in counts.items()
            if count > 0
        }

    def _known(self, shares: Mapping[str, float]) -> Mapping[str, float]:
        reads, makes = self.ends()
        del reads
        for root in shares:
            if root in self.groups:
                continue
            if root in makes:
                raise ModelError(
                    f"the width of `{root}` goes with that of `{makes[root]}`: name that one in"
                    " `widths`"
                )
            raise UnknownName("group of channels", root, self.groups)
        return shares
