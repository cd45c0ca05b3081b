"""Which node of an exported graph is which layer of the torch module.

Exporters fold batch norms and rename weights, but keep the order in which layers run, and the sizes
of their weights.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import onnx

_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_CODING = ("DequantizeLinear", "Transpose", "Identity", "Cast", "Reshape")


def layers_by_node(model: Path, layers: Iterable[tuple[str, tuple[int, ...]]]) -> dict[str, str]:
    """Return the path of each layer by the name of its node, as far as they can be told apart.

    Args:
        model: an ONNX file, float or quantized.
        layers: paths and weights' shapes, in the order in which they run.
    """
    graph = onnx.load(model, load_external_data=False).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    waiting = list(layers)
    found: dict[str, str] = {}
    for node in graph.node:
        if node.op_type not in _LAYERS:
            continue
        shape = shapes.get(_root(node.input[1], makers))
        if shape is None:
            continue
        place = next((i for i, (_, own) in enumerate(waiting) if _alike(own, shape)), None)
        if place is not None:
            found[node.name] = waiting[place][0]
            del waiting[: place + 1]
    return found


def _root(name: str, makers: dict[str, onnx.NodeProto]) -> str:
    while name in makers and makers[name].op_type in _CODING:
        name = makers[name].input[0]
    return name


def _alike(shape: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Say whether two shapes hold the same axes, in whatever order: weights may be transposed."""
    return sorted(shape) == sorted(other)
