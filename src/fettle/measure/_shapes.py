"""The shape of every tensor in a graph, for one example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import helper, shape_inference
from onnx.inliner import inline_local_functions

from fettle.core.errors import ModelError
from fettle.measure._graph import constants

Shapes = dict[str, tuple[int, ...]]


def for_one_example(
    model: onnx.ModelProto, inputs: Mapping[str, Sequence[int]] | None = None
) -> tuple[onnx.GraphProto, Shapes]:
    """Return the flat graph and all shapes in it, with a free batch dimension set to 1.

    `inputs` gives whole shapes for inputs that have more than the batch free. Where ONNX's own
    inference gives up (onnxruntime's operators), the graph is run once to see.

    Raises:
        ModelError: an input has other free dimensions and `inputs` doesn't say how large they are.
    """
    flat = inline_local_functions(model) if model.functions else onnx.ModelProto()
    if not model.functions:
        flat.CopyFrom(model)
    del flat.graph.value_info[:]
    held = {name for name, _ in constants(flat.graph)}
    for value in flat.graph.input:
        if value.name not in held:
            _fix(value, (inputs or {}).get(value.name))
    for value in flat.graph.output:
        value.type.tensor_type.ClearField("shape")
    shapes = _inferred(flat)
    wanted = [name for node in flat.graph.node for name in (*node.input, *node.output) if name]
    if any(name not in shapes for name in wanted):
        shapes |= _seen(flat, [name for name in wanted if name not in shapes], shapes)
    return flat.graph, shapes


def _fix(value: onnx.ValueInfoProto, given: Sequence[int] | None) -> None:
    dims = value.type.tensor_type.shape.dim
    if given is not None and len(given) == len(dims):
        for dim, size in zip(dims, given, strict=True):
            dim.dim_value = int(size)
        return
    for place, dim in enumerate(dims):
        if dim.dim_value < 1 and place == 0:
            dim.dim_value = 1
        elif dim.dim_value < 1:
            raise ModelError(
                f"input `{value.name}` has free dimensions besides the batch; say how large they"
                f" are: shapes={{'{value.name}': (1, …)}} with {len(dims)} numbers"
            )


def _inferred(model: onnx.ModelProto) -> Shapes:
    """Return the shapes that ONNX's inference knows, constants included."""
    try:
        full = shape_inference.infer_shapes(model, data_prop=True).graph
    except shape_inference.InferenceError as error:
        raise ModelError(f"the graph's shapes contradict each other: {error}") from error
    values = [*full.input, *full.value_info, *full.output]
    found = {name: tuple(tensor.dims) for name, tensor in constants(full)}
    for value in values:
        kind = value.type.tensor_type
        dims = tuple(dim.dim_value for dim in kind.shape.dim)
        if kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim):
            found[value.name] = dims
    return found


def _seen(model: onnx.ModelProto, missing: Sequence[str], known: Shapes) -> Shapes:
    """Run the graph once on zeros and return the shapes of the tensors in `missing`."""
    import onnxruntime

    produced = {name for node in model.graph.node for name in node.output}
    names = sorted(set(missing) & produced)
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options)
        feed = {
            value.name: np.zeros(
                known[value.name],
                helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type),
            )
            for value in _asked(model)
        }
        return {
            name: np.shape(array)
            for name, array in zip(names, session.run(names, feed), strict=True)
        }
    except Exception as error:  # onnxruntime's exception classes have no public base
        raise ModelError(f"the shapes of this graph can't be found: {error}") from error


def _asked(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Return the inputs that a caller has to give: those without an initializer."""
    held = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in held]
