"""Reading ONNX protobufs: every node and every tensor, those in branches and loops too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx


def read(model: Path | bytes) -> onnx.ModelProto:
    """Return the graph of a file or of its bytes, without weights that lie beside it."""
    if isinstance(model, bytes):
        return onnx.load_from_string(model)
    return onnx.load(model, load_external_data=False)


def nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield every node, also those inside the branches of If, Loop and Scan."""
    for node in graph.node:
        yield node
        for inner in inner_graphs(node):
            yield from nodes(inner)


def inner_graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the graphs that a node holds."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor: initializers and constants."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
        for inner in inner_graphs(node):
            yield from tensors(inner)


def files_beside(model: onnx.ModelProto) -> set[str]:
    """Return the names of the files in which weights lie, relative to the model's folder."""
    return {
        entry.value
        for tensor in tensors(model.graph)
        if tensor.data_location == onnx.TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
