"""Bringing anyone's ONNX file into the form in which it can be quantized.

A recent operator set (scales by axis need 13), weights that are initializers rather than defaults
of inputs or results of constant arithmetic, names for every node, no batch norms, and hard-swish
as one operator.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import version_converter
from onnx_ir.passes import common

from fettle.core.errors import ModelError
from fettle.graph._constants import add_constant
from fettle.graph._hard_functions import recognise_hard_functions
from fettle.graph._opset import inline_functions
from fettle.graph._quantized import constant_of
from fettle.graph.fold_batch_norm import fold_batch_norms

_OPSET, _LEAST_OPSET, _NEEDED_OPSET = 20, 17, 13
_IR_VERSION = 9  # that of operator set 20
_PARAMETERS = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (1, 2),
    "MatMul": (1,),
    "BatchNormalization": (1, 2, 3, 4),
}
_NOT_CONSTANT = ("Random", "Bernoulli", "Multinomial")


def prepared(model: ir.Model) -> ir.Model:
    """Return the same function in normal form; the model that came in may be used up.

    Raises:
        ModelError: the operator set is too old and can't be converted.
    """
    inline_functions(model)
    model = _upgraded(model)
    common.RemoveInitializersFromInputsPass()(model)
    model.ir_version = max(model.ir_version or 0, _IR_VERSION)
    _name_nodes(model)
    _fold_parameters(model)
    fold_batch_norms(model.graph)
    recognise_hard_functions(model.graph, model.graph.opset_imports.get("", _OPSET))
    common.RemoveUnusedNodesPass()(model)
    return model


def _name_nodes(model: ir.Model) -> None:
    """Give each node a name of its own; one without any is called after what it makes."""
    for node in model.graph:
        if not node.name:
            node.name = f"{node.op_type}_{node.outputs[0].name}"
    common.NameFixPass()(model)


def _upgraded(model: ir.Model) -> ir.Model:
    opset = model.graph.opset_imports.get("", _OPSET)
    if opset >= _LEAST_OPSET:
        return model
    try:
        proto = version_converter.convert_version(ir.to_proto(model), _OPSET)
        converted = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    except Exception as error:  # the converter's C++ exceptions have no base in common
        if opset >= _NEEDED_OPSET:
            return model
        raise ModelError(
            f"the model has ONNX operator set {opset}, quantization needs at least"
            f" {_NEEDED_OPSET}, and onnx can't convert it ({error}); export it anew with a recent"
            " operator set"
        ) from error
    return converted


def _fold_parameters(model: ir.Model) -> None:
    """Compute once what layers take for parameters, where it depends on constants alone."""
    graph = model.graph
    known = {value for value in graph.initializers.values() if not value.is_graph_input()}
    for node in graph:
        if _computable(node, known):
            known.update(node.outputs)
    wanted = {
        value
        for node in graph
        for index in _PARAMETERS.get(node.op_type, ())
        if len(node.inputs) > index
        and (value := node.inputs[index]) in known
        and constant_of(value) is None
    }
    if not wanted:
        return
    names = sorted(str(value.name) for value in wanted)
    try:
        arrays = dict(zip(names, _computed(model, names), strict=True))
    except Exception as error:  # onnxruntime's exception classes have no public base
        raise ModelError(
            f"the parameters {names[:3]} are computed from constants, and onnxruntime can't do that"
            f" ({error}); export the model with its constants folded"
        ) from error
    for value in wanted:
        constant = add_constant(graph, f"{value.name}_folded", arrays[str(value.name)])
        value.replace_all_uses_with(constant)


def _computable(node: ir.Node, known: set[ir.Value]) -> bool:
    kinds = {attribute.type for attribute in node.attributes.values()}
    if node.op_type.startswith(_NOT_CONSTANT) or ir.AttributeType.GRAPH in kinds:
        return False
    return all(value is None or value in known for value in node.inputs)


def _computed(model: ir.Model, names: list[str]) -> list[np.ndarray]:
    copied = model.clone()
    values = {value.name: value for node in copied.graph for value in node.outputs}
    copied.graph.outputs[:] = [values[name] for name in names]
    common.RemoveUnusedNodesPass()(copied)
    copied.graph.inputs.clear()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(
        ir.to_proto(copied).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    found: list[np.ndarray] = session.run(names, {})
    return found
