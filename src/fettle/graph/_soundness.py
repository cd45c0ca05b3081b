"""Constants that are no numbers, which a rewrite would turn into numbers or spread."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
from onnx_ir.traversal import RecursiveGraphIterator

from fettle.core.errors import ModelError
from fettle.graph._quantized import constant_of

_FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE}
_LAYERS = {
    *("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN"),
    *("BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization"),
}


def refuse_unsound(model: ir.Model, who: str) -> None:
    """Refuse NaN in any constant, and infinity in what layers take for parameters.

    Elsewhere infinity may be meant: in the mask of an attention, or as a bound.

    Raises:
        ModelError: there is one; the message names it and `who` asks.
    """
    parameters = set(_parameters(model))
    for value in dict.fromkeys((*_initializers(model), *parameters)):
        array = _floats(value)
        if array is None:
            continue
        if np.isnan(array).any():
            what = "NaN"
        elif value in parameters and np.isinf(array).any():
            what = "infinity"
        else:
            continue
        raise ModelError(
            f"`{who}` needs sound weights, but `{value.name}` holds {what}; mend the training, or"
            " load other weights"
        )


def _initializers(model: ir.Model) -> Iterator[ir.Value]:
    for graph in (model.graph, *model.graph.subgraphs()):
        yield from graph.initializers.values()


def _parameters(model: ir.Model) -> Iterator[ir.Value]:
    for node in RecursiveGraphIterator(model.graph):
        if node.op_type in _LAYERS:
            yield from (v for v in node.inputs if v is not None and constant_of(v) is not None)


def _floats(value: ir.Value) -> np.ndarray | None:
    array = constant_of(value) if value.dtype is None or value.dtype in _FLOATS else None
    return array if array is not None and array.dtype.kind == "f" else None
