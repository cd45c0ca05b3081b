"""Raising a model to the operator set that a rewrite needs."""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from fettle.core.errors import ModelError

MICROSOFT = "com.microsoft"
_LARGE = 1_000_000  # bytes; larger constants stay out of the converter, which can't pass 2 GiB
# The file format that came with an operator set; int4 came with the tenth.
_FORMATS = {13: 7, 21: 10}


def opset_of(model: ir.Model) -> int:
    """Return the version of ONNX's own operators that the model was written in."""
    return model.opset_imports.get("", 1)


def raised(model: ir.Model, version: int) -> ir.Model:
    """Return the model in operator set `version` or its own newer one.

    Raises:
        ModelError: onnx can't convert it.
    """
    _defaults_are_constants(model)
    inline_functions(model)
    if opset_of(model) < version:
        model = _converted(model, version)
    model.ir_version = max(model.ir_version, _FORMATS[version])
    return model


def inline_functions(model: ir.Model) -> None:
    """Put the model's own functions where they are called: the converter loses them."""
    if model.functions:
        InlinePass()(model)


def _converted(model: ir.Model, version: int) -> ir.Model:
    held = {
        str(value.name): value.const_value
        for value in model.graph.initializers.values()
        if value.const_value is not None and value.const_value.nbytes > _LARGE
    }
    for name in held:
        value = model.graph.initializers.pop(name)
        value.const_value = None
        model.graph.inputs.append(value)
    try:
        proto = onnx.version_converter.convert_version(ir.to_proto(model), version)
    except Exception as error:  # the converter raises plain RuntimeError, and more
        raise ModelError(
            f"the model is in operator set {opset_of(model)}, {version} is needed, and onnx can't"
            f" convert it ({error}); export it anew with opset {version}"
        ) from error
    result = ir.from_proto(proto)
    for name, tensor in held.items():
        value = next(value for value in result.graph.inputs if value.name == name)
        result.graph.inputs.remove(value)
        value.const_value = tensor
        result.graph.register_initializer(value)
    return result


def _defaults_are_constants(model: ir.Model) -> None:
    """Take constants off the list of inputs, where files of the first format have them."""
    inputs = model.graph.inputs
    inputs[:] = [value for value in inputs if not value.is_initializer()]
    model.ir_version = max(model.ir_version, 4)
