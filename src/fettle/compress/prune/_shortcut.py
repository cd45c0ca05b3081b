"""How Torch-Pruning removes channels around a shortcut without parameters (option A)."""

from __future__ import annotations

from collections.abc import Sequence

import torch_pruning as tp

from fettle.models.cifar import Shortcut


class ShortcutPruner(tp.pruner.BasePruningFunc):  # type: ignore[misc]  # torch_pruning is untyped
    """A shortcut's inputs and outputs are pruned apart: the padding between shifts channels."""

    def prune_out_channels(self, layer: Shortcut, idxs: Sequence[int]) -> Shortcut:
        """Remove output channels."""
        layer.drop_outputs(idxs)
        return layer

    def prune_in_channels(self, layer: Shortcut, idxs: Sequence[int]) -> Shortcut:
        """Remove input channels."""
        layer.drop_inputs(idxs)
        return layer

    def get_out_channels(self, layer: Shortcut) -> int:
        """Return the width of the output."""
        return layer.out_channels

    def get_in_channels(self, layer: Shortcut) -> int:
        """Return the width of the input."""
        return layer.in_channels
