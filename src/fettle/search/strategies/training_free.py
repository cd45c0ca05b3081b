"""Quantization without training, and half-precision weights: seconds each.

The model's own operators say what is worth trying: convolutions take static quantization; models
of matrix products and recurrent layers take the dynamic and the weight-only forms too.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from fettle.core.recipe import Recipe
from fettle.measure.operators import operators_of
from fettle.search.strategies._strategy import Strategy
from fettle.search.study import Candidate

if TYPE_CHECKING:
    from fettle.search.optimize import Search

_DYNAMIC = "graph.dynamic_int8"
_PRODUCTS = ("MatMul", "Gemm", "LSTM", "GRU", "RNN")


class TrainingFree(Strategy):
    """Static INT8 for all; dynamic and weight-only forms where there are matrix products."""

    order: ClassVar[int] = 10
    title: ClassVar[str] = "without training: INT8 and smaller weights"

    def explore(self, search: Search) -> None:
        """Try every form that the model's operators call for."""
        for line in lines_for(search):
            search.attempt(Candidate(Recipe.parse(line)))


def lines_for(search: Search) -> list[str]:
    """Return the recipes, the most promising first."""
    found = operators_of(_untouched(search))
    has_products = any(op in found for op in _PRODUCTS)
    static = "graph.static_int8" if _on_graph(search) else "quantize.static"
    lines = [static] if "Conv" in found or has_products else []
    if has_products and found.get("Conv", 0) <= sum(found.get(op, 0) for op in _PRODUCTS):
        lines += [_DYNAMIC, "graph.weight_only", "graph.weight_only(bits=4)"]
    return [*lines, "graph.float16"] if search.wish.objective in ("size", "memory") else lines


def last_for(search: Search) -> str:
    """Return the quantization without training that ends a recipe of techniques.

    Where lengths are free, torch would capture a single one: what is pruned is quantized on its
    graph, where the ranges of products are read off each input.
    """
    if not has_free_lengths(search):
        return "quantize.static"
    return _DYNAMIC if _DYNAMIC in lines_for(search) else "graph.static_int8"


def has_free_lengths(search: Search) -> bool:
    """Say whether an input has a free dimension besides the batch: torch captures one length."""
    return any(size < 0 for spec in search.task.signature.inputs for size in spec.shape[1:])


def _on_graph(search: Search) -> bool:
    """Say whether ranges are set on the ONNX graph, and not where torch captures one."""
    return has_free_lengths(search) or search.workshop.source.is_onnx


def _untouched(search: Search) -> Path:
    return next(t.model for t in search.trials if t.is_plain and isinstance(t.model, Path))
