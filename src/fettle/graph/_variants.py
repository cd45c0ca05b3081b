"""One calibration, many masters: the same ranges, with other layers left in floating point."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import onnx_ir as ir
from onnx_ir.passes import common

from fettle.graph._constants import keep_names_apart
from fettle.graph._histogram import Histogram
from fettle.graph._insertion import Grid, insert
from fettle.graph._placement import Placement, place


class Variants:
    """A float model whose tensors were all observed once.

    Leaving layers in float only ever takes quantizers away, so what was observed for the whole
    master holds for each of its variants.

    Args:
        model: prepared; it stays as it is.
        seen: of each tensor that the whole master quantizes, by name.
        grid: gives the integers of what was seen.
        between_activations: whether products of two activations are quantized too.
        weight_bits: of the weights.
    """

    def __init__(
        self,
        model: ir.Model,
        seen: Mapping[str, Histogram],
        grid: Callable[[Histogram], Grid],
        between_activations: bool = False,
        weight_bits: int = 8,
    ) -> None:
        self.model, self.seen, self.grid = model, seen, grid
        self.between_activations, self.weight_bits = between_activations, weight_bits
        self.layers = tuple(str(node.name) for node in self._placement(model, ()).layers)

    def only(self, layers: Collection[str]) -> ir.Model:
        """Return the model with these layers in int8, and all others in float."""
        return self.leaving([name for name in self.layers if name not in set(layers)])

    def leaving(self, nodes: Collection[str]) -> ir.Model:
        """Return the int8 master with these nodes left in float."""
        model = self.model.clone()
        placement = self._placement(model, nodes)
        grids = {
            root: self.grid(merged(self.seen, values))
            for root, values in placement.observed().items()
        }
        insert(model.graph, placement, grids, self.weight_bits)
        common.RemoveUnusedNodesPass()(model)
        keep_names_apart(model)
        return model

    def _placement(self, model: ir.Model, nodes: Collection[str]) -> Placement:
        left = frozenset(nodes)
        return place(model.graph, lambda node: node.name in left, self.between_activations)


def merged(seen: Mapping[str, Histogram], values: Collection[ir.Value]) -> Histogram:
    """Return what was seen of several tensors together."""
    found = Histogram()
    for value in values:
        found.merge(seen[str(value.name)])
    return found
