"""Which node of an exported graph is which layer of the torch module.

A weight that still bears its module's name says so. Where one was renamed (quantized, folded), the
order in which layers run and the sizes of their weights tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx

_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_CODING = ("DequantizeLinear", "Transpose", "Identity", "Cast", "Reshape")


def layers_by_node(model: Path, layers: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """Return the path of each layer by the name of its node, as far as they can be told apart.

    Args:
        model: an ONNX file, float or quantized.
        layers: the weight's shape by path, in the order in which they run.
    """
    graph = onnx.load(model, load_external_data=False).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    nodes = [node for node in graph.node if node.op_type in _LAYERS]
    weights = {node.name: _root(node.input[1], makers) for node in nodes}
    found: dict[str, str] = {}
    waiting = list(layers)
    for name, weight in weights.items():
        own = weight.removesuffix(".weight")
        if own not in waiting:
            alike = (
                weight in shapes and bool(waiting) and _alike(shapes[weight], layers[waiting[0]])
            )
            own = waiting[0] if alike else ""
        if own:
            found[name] = own
            del waiting[: waiting.index(own) + 1]
    return found


def _root(name: str, makers: dict[str, onnx.NodeProto]) -> str:
    while name in makers and makers[name].op_type in _CODING:
        name = makers[name].input[0]
    return name


def _alike(shape: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Say whether two shapes hold the same axes, in whatever order: weights may be transposed."""
    return sorted(shape) == sorted(other)
