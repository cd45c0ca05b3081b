"""Seeded random inputs for an ONNX file that comes alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx

from fettle.core.arrays import Arrays, TensorSpec
from fettle.core.errors import ModelError

FREE_LENGTH = 128  # of token ids, where the file leaves the length free
_SEGMENTS = 4  # a table of so few rows tells segments apart, not words
_MOVES = {"Cast", "Reshape", "Unsqueeze", "Squeeze", "Identity", "Flatten", "Transpose"}


def random_inputs(path: Path, n: int = 8) -> Arrays:
    """Return `n` rows of seeded random inputs for an ONNX file.

    Integers are ids of the table that they look up, so that no engine reads past its end, and 1
    where they look up none (masks) or one of few rows (segments: 0). Free dimensions are 1, but
    128 for the length of token ids.

    Raises:
        ModelError: an input of a type that random numbers make no sense for.
    """
    rng = np.random.default_rng(0)
    tables = table_rows(path)
    return {spec.name: _random(spec, n, tables.get(spec.name), rng) for spec in input_specs(path)}


def input_specs(path: Path) -> tuple[TensorSpec, ...]:
    """Return the inputs of an ONNX file as the file tells them: no engine is asked."""
    graph = onnx.load(path, load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}
    return tuple(_spec(value) for value in graph.input if value.name not in constants)


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim)
    if not tensor.elem_type:  # a sequence, an optional
        return TensorSpec(value.name, str(value.type.WhichOneof("value")), shape)
    kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    return TensorSpec(value.name, "string" if kind.kind == "O" else str(kind), shape)


def table_rows(path: Path) -> Mapping[str, int]:
    """Return for each input that indexes a table of constants how many rows the table has."""
    graph = onnx.load(path, load_external_data=False).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    origin = {value.name: value.name for value in graph.input}
    found: dict[str, int] = {}
    for node in graph.node:
        first = node.input[0] if node.input else ""
        if node.op_type == "Constant":
            shapes[node.output[0]] = tuple(node.attribute[0].t.dims)
        elif node.op_type in _MOVES and first in origin:
            origin[node.output[0]] = origin[first]
        elif node.op_type == "DequantizeLinear" and first in shapes:
            shapes[node.output[0]] = shapes[first]
        elif node.op_type == "Gather" and node.input[1] in origin and shapes.get(first):
            name, rows = origin[node.input[1]], shapes[first][_axis(node)]
            found[name] = min(rows, found.get(name, rows))
    return found


def _axis(node: onnx.NodeProto) -> int:
    return next((int(a.i) for a in node.attribute if a.name == "axis"), 0)


def _random(spec: TensorSpec, n: int, table: int | None, rng: np.random.Generator) -> np.ndarray:
    integer = spec.dtype.startswith(("int", "uint", "bool"))
    free = FREE_LENGTH if integer and len(spec.shape) == 2 else 1
    rows = n if not spec.shape or spec.shape[0] < 0 else spec.shape[0]
    shape = (rows, *(d if d > 0 else free for d in spec.shape[1:])) if spec.shape else ()
    if spec.dtype.startswith("float"):
        return rng.standard_normal(shape).astype(spec.dtype)
    if integer and table is not None:
        ids = rng.integers(1, table, shape) if table > _SEGMENTS else np.zeros(shape)
        return np.asarray(ids).astype(spec.dtype)
    if integer:
        return np.ones(shape, spec.dtype)
    raise ModelError(
        f"input `{spec.name}` has type {spec.dtype}, of which no random ones can be made; give"
        " real ones by `--data`, or a bundle, which brings its own"
    )
