"""Reading ONNX files: the graph, its constant tensors, and which of them are weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.external_data_helper import load_external_data_for_model

from fettle.core.bundle import MODEL, is_bundle
from fettle.core.errors import ModelError

# For each operator: input of a weight -> input of its zero point.
_ZERO_POINTS = {
    "DequantizeLinear": {0: 2},
    "QLinearConv": {3: 5},
    "ConvInteger": {1: 3},
    "QLinearMatMul": {3: 5},
    "MatMulInteger": {1: 3},
    "DynamicQuantizeMatMul": {1: 3},
    "MatMulIntegerToFloat": {1: 5},
    "QGemm": {3: 5},
    "DynamicQuantizeLSTM": {1: 9, 2: 11},
}
# For each operator: inputs that say how numbers are coded, and are no parameters themselves.
_CODING = {
    "QuantizeLinear": (1, 2),
    "DequantizeLinear": (1, 2),
    "QLinearConv": (1, 2, 4, 5, 6, 7),
    "ConvInteger": (2, 3),
    "QLinearMatMul": (1, 2, 4, 5, 6, 7),
    "MatMulInteger": (2, 3),
    "QLinearAdd": (1, 2, 4, 5, 6, 7),
    "QLinearMul": (1, 2, 4, 5, 6, 7),
    "QLinearGlobalAveragePool": (1, 2, 3, 4),
    "DynamicQuantizeMatMul": (2, 3),
    "MatMulIntegerToFloat": (2, 3, 4, 5),
    "QGemm": (1, 2, 4, 5, 7, 8),
    "DynamicQuantizeLSTM": (8, 9, 10, 11),
    "Clip": (1, 2),
}
_INDEX_TYPES = (onnx.TensorProto.INT64, onnx.TensorProto.BOOL, onnx.TensorProto.STRING)


@dataclass(frozen=True)
class Weight:
    """One constant tensor that the model learned, and the zero point of its code, if it has one."""

    name: str
    tensor: onnx.TensorProto
    zero_point: onnx.TensorProto | None = None
    axis: int = 1

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return int(np.prod(self.tensor.dims, dtype=np.int64))

    def zeros(self) -> int:
        """Count the numbers that stand for zero: those equal to the zero point."""
        values = numpy_helper.to_array(self.tensor)
        if self.zero_point is None:
            return int(np.sum(values == 0))
        point = numpy_helper.to_array(self.zero_point)
        if point.size > 1:
            shape = [1] * values.ndim
            shape[self.axis] = -1
            point = point.reshape(shape)
        return int(np.sum(values == point))


def find_model(path: str | Path) -> Path:
    """Return the ONNX file that `path` means: itself, or the model of a bundle.

    Raises:
        ModelError: there is no such file.
    """
    file = Path(path) / MODEL if is_bundle(path) else Path(path)
    if not file.is_file():
        raise ModelError(f"an ONNX file or a bundle was expected at `{path}`, found none")
    return file


def read(path: str | Path, with_data: bool = False) -> onnx.ModelProto:
    """Read an ONNX file or a bundle's model; weights kept outside are left there unless asked.

    Raises:
        ModelError: it is missing, or no valid ONNX.
    """
    file = find_model(path)
    try:
        model = onnx.load(str(file), load_external_data=False)
        if not model.graph.node and not model.graph.output:
            raise ValueError("it holds no graph")
        if with_data:
            load_external_data_for_model(model, str(file.parent))
    except Exception as error:  # protobuf and onnx raise many kinds for one cause: a bad file
        raise ModelError(f"`{file}` can't be read as ONNX ({error}); export it anew") from error
    return model


def nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield every node, also those inside the branches of If, Loop and Scan."""
    for node in graph.node:
        yield node
        for inner in _subgraphs(node):
            yield from nodes(inner)


def constants(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Yield name and tensor of every initializer and Constant node, subgraphs included."""
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                yield node.output[0], attribute.t
        for inner in _subgraphs(node):
            yield from constants(inner)


def weights(model: onnx.ModelProto) -> list[Weight]:
    """Return the constants that are parameters: no indices, shapes, scales or zero points.

    32-bit integers count only where they are dequantized or added inside an integer operator.
    """
    held = dict(constants(model.graph))
    uses = list(_uses(model.graph))
    coding = {name for name, node, place in uses if place in _CODING.get(node.op_type, ())}
    by_name = {name: (node, place) for name, node, place in reversed(uses)}
    found = []
    for name, tensor in held.items():
        if name in coding or name not in by_name or tensor.data_type in _INDEX_TYPES:
            continue
        node, place = by_name[name]
        if tensor.data_type == onnx.TensorProto.INT32 and node.op_type not in _CODING:
            continue
        found.append(Weight(name, tensor, _zero_point(node, place, held), _axis(node)))
    return found


def external_files(model: onnx.ModelProto, folder: Path) -> list[Path]:
    """Return the files that hold the model's weights outside of it, each once, sorted.

    Raises:
        ModelError: one is missing, or its name leaves the model's folder.
    """
    names = {
        entry.value
        for _, tensor in constants(model.graph)
        if tensor.data_location == onnx.TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return [_inside(folder, name) for name in sorted(names)]


def attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    """Return an integer attribute of a node."""
    return next((int(a.i) for a in node.attribute if a.name == name), default)


def _inside(folder: Path, name: str) -> Path:
    inside = PurePosixPath(name)
    if inside.is_absolute() or ".." in inside.parts:
        raise ModelError(f"the model keeps weights at `{name}`, which leaves its folder; refused")
    if not (folder / inside).is_file():
        raise ModelError(f"the model's weights `{name}` are missing beside it; copy them along")
    return folder / inside


def _subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for item in node.attribute:
        if item.type == onnx.AttributeProto.GRAPH:
            yield item.g
        yield from item.graphs


def _uses(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.NodeProto, int]]:
    for node in nodes(graph):
        for place, name in enumerate(node.input):
            if name:
                yield name, node, place


def _zero_point(
    node: onnx.NodeProto, place: int, held: dict[str, onnx.TensorProto]
) -> onnx.TensorProto | None:
    at = _ZERO_POINTS.get(node.op_type, {}).get(place)
    return held.get(node.input[at]) if at is not None and at < len(node.input) else None


def _axis(node: onnx.NodeProto) -> int:
    """Return along which axis a vector of zero points lies."""
    if node.op_type == "DequantizeLinear":
        return attribute(node, "axis", 1)
    return 0 if node.op_type == "QLinearConv" else -1
