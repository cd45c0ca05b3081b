"""Between the protocol's gRPC messages and `InferRequest`, `InferResponse`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fettle.core.arrays import TensorSpec
from fettle.serve.errors import BadRequest
from fettle.serve.grpc.messages import message
from fettle.serve.protocol.datatypes import BYTES, name_of
from fettle.serve.protocol.reading import TensorLimits, read_id, read_output, refuse_remote
from fettle.serve.protocol.request import InferRequest, InferResponse, Parameter, Wanted
from fettle.serve.protocol.signature import Signature
from fettle.serve.protocol.tensors import elements, from_raw, from_values, to_raw
from fettle.serve.protocol.wording import listed, shown
from fettle.serve.protocol.writing import chosen

_CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}


def read_request(asked: Any, signature: Signature, limits: TensorLimits) -> InferRequest:
    """Return the request in a `ModelInferRequest`, checked against the model's signature.

    Raises:
        BadRequest: whatever is not what the model takes.
        TooLarge: a tensor past its limit.
    """
    raw = list(asked.raw_input_contents)
    if raw and len(raw) != len(asked.inputs):
        raise BadRequest(
            f"`raw_input_contents` expects one for each of the {len(asked.inputs)} inputs, or none"
            f" at all, got {len(raw)}"
        )
    inputs: dict[str, np.ndarray] = {}
    for number, entry in enumerate(asked.inputs):
        if entry.name in inputs:
            raise BadRequest(f"each input was expected once, got {shown(entry.name)} twice")
        inputs[entry.name] = _input(entry, raw[number] if raw else None, signature, limits)
    signature.check(inputs)
    outputs = tuple(map(_output, asked.outputs))
    signature.check_outputs(outputs)
    return InferRequest(
        read_id(asked.id), inputs, outputs, read_parameters(asked.parameters), binary_default=True
    )


def write_response(response: InferResponse) -> Any:
    """Return the answer as a `ModelInferResponse`: its outputs as bytes."""
    found = message("ModelInferResponse")(
        model_name=response.model, model_version=response.version, id=response.id
    )
    for name, value in response.parameters.items():
        _set_parameter(found.parameters[name], value)
    for wanted, array in chosen(response):
        found.outputs.add(name=wanted.name, datatype=name_of(array.dtype), shape=array.shape)
        found.raw_output_contents.append(to_raw(array))
    return found


def read_parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of parameters, each of the one kind that it was given in."""
    found = {}
    for name, value in given.items():
        kind = value.WhichOneof("parameter_choice")
        if kind is None:
            raise BadRequest(f"parameter {shown(name)} expects a value, got none")
        found[name] = getattr(value, kind)
    return found


def _input(entry: Any, raw: bytes | None, signature: Signature, limits: TensorLimits) -> np.ndarray:
    shape = list(entry.shape)
    if any(size < 0 for size in shape):
        raise BadRequest(
            f"`shape` of input {shown(entry.name)} expects sizes from 0, got {shown(shape)}"
        )
    spec = signature.admit(entry.name, entry.datatype, shape)
    elements(entry.name, shape, limits.tensor_elements)
    refuse_remote(read_parameters(entry.parameters), f"input `{entry.name}`")
    given = [field.name for field, _ in entry.contents.ListFields()]
    if raw is not None:
        if given:
            raise BadRequest(
                f"input `{entry.name}` expects `raw_input_contents` or `{given[0]}`, got both"
            )
        return from_raw(spec, shape, raw)
    return from_values(spec, shape, _typed(spec, entry.contents, given))


def _typed(spec: TensorSpec, contents: Any, given: list[str]) -> list[Any]:
    """Return the values in the one field that is meant for their type."""
    datatype = name_of(spec.dtype)
    field = _CONTENTS.get(datatype)
    if field is None:
        raise BadRequest(
            f"input `{spec.name}` expects its {datatype} in `raw_input_contents`: the protocol has"
            " no other place for it"
        )
    if given != [field]:
        raise BadRequest(
            f"input `{spec.name}` expects its {datatype} in `raw_input_contents` or `{field}`, got"
            f" {listed(given)}"
        )
    values = list(getattr(contents, field))
    return [_text(spec.name, each) for each in values] if datatype == BYTES else values


def _text(name: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise BadRequest(f"input `{name}` expects UTF-8 in its BYTES, got {shown(value)}") from None


def _output(entry: Any) -> Wanted:
    return read_output(
        {"name": entry.name, "parameters": read_parameters(entry.parameters)}, default=True
    )


def _set_parameter(field: Any, value: Parameter) -> None:
    if isinstance(value, bool):
        field.bool_param = value
    elif isinstance(value, int):
        field.int64_param = value
    elif isinstance(value, float):
        field.double_param = value
    else:
        field.string_param = value
