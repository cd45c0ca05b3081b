"""From the body of an HTTP request to arrays: JSON, and tensors as bytes after it.

With the header `Inference-Header-Content-Length` the body is that many bytes of JSON, then the
bytes of each input that has a `binary_data_size`, in the order of the inputs. A length of 0 says
that there is no JSON at all: the body is the one input of the model.

Specification: Triton's binary tensor data extension (server/docs/protocol).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from fettle.core.arrays import TensorSpec
from fettle.serve.errors import BadRequest
from fettle.serve.protocol._document import parse
from fettle.serve.protocol.datatypes import BYTES, NUMPY, name_of
from fettle.serve.protocol.request import InferRequest, Parameter, Wanted
from fettle.serve.protocol.signature import Signature
from fettle.serve.protocol.tensors import elements, from_raw, from_values
from fettle.serve.protocol.wording import kind_of, shown

LONGEST_ID = 256  # characters; the log keeps it with each prediction
_MOST_OUTPUTS = 1024
_REMOTE = "shared_memory_region"


class TensorLimits(Protocol):
    """What of a server's limits bounds a request's tensors."""

    @property
    def tensor_elements(self) -> int:
        """Numbers in one tensor."""


def read_infer(
    body: bytes | bytearray | memoryview,
    json_length: int | None,
    signature: Signature,
    limits: TensorLimits,
) -> InferRequest:
    """Return the request in `body`, checked against the model's signature.

    Args:
        body: JSON, and perhaps tensors after it; the arrays may be views of it.
        json_length: how many bytes of it are JSON; None where all are.
        signature: what the model takes and gives.
        limits: how many numbers a tensor may hold.

    Raises:
        BadRequest: whatever is malformed, or not what the model takes; the message says what was
            expected and what came.
        TooLarge: a tensor past its limit.
    """
    view = memoryview(body)
    length = len(view) if json_length is None else json_length
    if not 0 <= length <= len(view):
        raise BadRequest(
            "`Inference-Header-Content-Length` expects the bytes of JSON in the body,"
            f" 0 to {len(view)}, got {shown(length)}"
        )
    if json_length == 0:
        return _raw(view, signature, limits)
    document = parse(view[:length])
    inputs = _Inputs(view[length:], signature, limits).read(_list(document, "inputs"))
    signature.check(inputs)
    parameters = _parameters(document, "the request")
    default = _flag(parameters, "binary_data_output", default=False)
    outputs = _outputs(document, default)
    signature.check_outputs(outputs, default)
    return InferRequest(read_id(document.get("id", "")), inputs, outputs, parameters, default)


class _Inputs:
    """Reads inputs one after the other, each with its share of the bytes after the JSON."""

    def __init__(self, data: memoryview, signature: Signature, limits: TensorLimits) -> None:
        self._data, self._signature, self._limits = data, signature, limits
        self._at = 0

    def read(self, entries: list[Any]) -> dict[str, np.ndarray]:
        """Return the inputs by name."""
        found: dict[str, np.ndarray] = {}
        for entry in entries:
            name, array = self._one(_object(entry, "inputs"))
            if name in found:
                raise BadRequest(f"each input was expected once, got `{name}` twice")
            found[name] = array
        if self._at != len(self._data):
            raise BadRequest(
                f"{self._at} bytes were expected after the JSON, as its `binary_data_size` say,"
                f" got {len(self._data)}"
            )
        return found

    def _one(self, entry: Mapping[str, Any]) -> tuple[str, np.ndarray]:
        name = _text(entry, "name", "an input")
        spec = self._signature.admit(
            name, _text(entry, "datatype", f"input `{name}`"), _shape(entry)
        )
        elements(name, entry["shape"], self._limits.tensor_elements)
        parameters = _parameters(entry, f"input `{name}`")
        refuse_remote(parameters, f"input `{name}`")
        if "binary_data_size" not in parameters:
            if "data" not in entry:
                raise BadRequest(f"input `{name}` expects `data` or a `binary_data_size`, got none")
            return name, from_values(spec, entry["shape"], entry["data"])
        if "data" in entry:
            raise BadRequest(f"input `{name}` expects `data` or a `binary_data_size`, got both")
        return name, from_raw(spec, entry["shape"], self._take(name, parameters))

    def _take(self, name: str, parameters: Mapping[str, Parameter]) -> memoryview:
        size = parameters["binary_data_size"]
        if type(size) is not int or size < 0:
            raise BadRequest(
                f"`binary_data_size` of input `{name}` expects a number of bytes, got"
                f" {kind_of(size)}"
            )
        left = len(self._data) - self._at
        if size > left:
            raise BadRequest(
                f"input `{name}` says that it has {shown(size)} bytes after the JSON, but {left}"
                " are left"
            )
        self._at += size
        return self._data[self._at - size : self._at]


def _raw(data: memoryview, signature: Signature, limits: TensorLimits) -> InferRequest:
    """Return the request that is nothing but the bytes of the model's one input."""
    if len(signature.inputs) != 1:
        raise BadRequest(
            "a request without JSON (`Inference-Header-Content-Length: 0`) expects a model with"
            f" one input, this one has {len(signature.inputs)}"
        )
    spec = signature.inputs[0]
    shape = _raw_shape(spec, len(data))
    elements(spec.name, shape, limits.tensor_elements)
    signature.admit(spec.name, name_of(spec.dtype), shape)
    inputs = {spec.name: from_raw(spec, shape, data)}
    signature.check(inputs)
    return InferRequest("", inputs, binary_default=True)


def _raw_shape(spec: TensorSpec, size: int) -> list[int]:
    """Return the shape that so many bytes have; one dimension may be free."""
    free = [at for at, dim in enumerate(spec.shape) if dim < 0]
    if name_of(spec.dtype) == BYTES or len(free) > 1:
        raise BadRequest(
            f"input `{spec.name}` can't be sent without JSON: its shape {list(spec.shape)} isn't"
            " told by the number of bytes"
        )
    fixed = NUMPY[name_of(spec.dtype)].itemsize
    for dim in spec.shape:
        fixed *= dim if dim >= 0 else 1
    count, rest = divmod(size, max(1, fixed))
    if rest or (not free and count != 1):
        raise BadRequest(
            f"input `{spec.name}` expects {'a multiple of ' if free else ''}{fixed} bytes, got"
            f" {size}"
        )
    return [count if dim < 0 else dim for dim in spec.shape]


def _outputs(document: Mapping[str, Any], default: bool) -> tuple[Wanted, ...]:
    if "outputs" not in document:
        return ()
    entries = _list(document, "outputs")
    if len(entries) > _MOST_OUTPUTS:
        raise BadRequest(f"at most {_MOST_OUTPUTS} outputs were expected, got {len(entries)}")
    return tuple(read_output(_object(entry, "outputs"), default) for entry in entries)


def read_output(entry: Mapping[str, Any], default: bool) -> Wanted:
    """Return the output that an entry asks for, as bytes if that is the default; or BadRequest."""
    name = _text(entry, "name", "an output")
    whose = f"output {shown(name)}"
    parameters = _parameters(entry, whose)
    refuse_remote(parameters, whose)
    count = parameters.get("classification", 0)
    if type(count) is not int or count < 0:
        raise BadRequest(
            f"`classification` of {whose} expects a number of classes, got {kind_of(count)}"
        )
    return Wanted(name, _flag(parameters, "binary_data", default), count)


def read_id(found: Any) -> str:
    """Return the caller's own id of a request, or raise BadRequest."""
    if not isinstance(found, str):
        raise BadRequest(f"`id` expects a string, got {kind_of(found)}")
    if len(found) > LONGEST_ID:
        raise BadRequest(f"`id` expects at most {LONGEST_ID} characters, got {len(found)}")
    return found


def _shape(entry: Mapping[str, Any]) -> list[int]:
    found = entry.get("shape")
    if not isinstance(found, list) or any(type(size) is not int or size < 0 for size in found):
        raise BadRequest(
            f"`shape` of input {shown(entry['name'])} expects an array of whole numbers from 0,"
            f" got {shown(found) if isinstance(found, list) else kind_of(found)}"
        )
    return found


def _list(document: Mapping[str, Any], key: str) -> list[Any]:
    found = document.get(key)
    if not isinstance(found, list):
        came = kind_of(found) if key in document else "none"
        raise BadRequest(f"`{key}` expects an array of objects, got {came}")
    return found


def _object(entry: Any, key: str) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise BadRequest(f"`{key}` expects an array of objects, got {kind_of(entry)} in it")
    return entry


def _text(entry: Mapping[str, Any], key: str, whose: str) -> str:
    found = entry.get(key)
    if not isinstance(found, str):
        came = kind_of(found) if key in entry else "none"
        raise BadRequest(f"`{key}` of {whose} expects a string, got {came}")
    return found


def _parameters(entry: Mapping[str, Any], whose: str) -> dict[str, Parameter]:
    found = entry.get("parameters", {})
    if not isinstance(found, dict):
        raise BadRequest(f"`parameters` of {whose} expects an object, got {kind_of(found)}")
    for name, value in found.items():
        if not isinstance(value, str | int | float):  # a bool is an int
            raise BadRequest(
                f"parameter {shown(name)} of {whose} expects a string, a number or a boolean, got"
                f" {kind_of(value)}"
            )
    return found


def _flag(parameters: Mapping[str, Parameter], name: str, default: bool) -> bool:
    found = parameters.get(name, default)
    if not isinstance(found, bool):
        raise BadRequest(f"`{name}` expects true or false, got {kind_of(found)}")
    return found


def refuse_remote(parameters: Mapping[str, Parameter], whose: str) -> None:
    """Raise BadRequest if data lie, or should lie, in memory that is shared with the caller."""
    if _REMOTE in parameters:
        raise BadRequest(
            f"{whose} expects its data in the request or the answer: shared memory isn't offered"
        )
