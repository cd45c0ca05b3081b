"""Tensors between the wire and numpy: raw little-endian bytes, or a list of values from JSON."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from fettle.core.arrays import TensorSpec
from fettle.serve.errors import BadRequest, TooLarge
from fettle.serve.protocol.datatypes import BINARY_ONLY, BYTES, FLOATS, NUMPY, name_of
from fettle.serve.protocol.wording import kind_of, shown

_LENGTH = struct.Struct("<I")


def elements(name: str, shape: Sequence[int], most: int) -> int:
    """Return how many numbers a tensor of this shape holds.

    Raises:
        TooLarge: more than `most`.
    """
    count = math.prod(shape)
    if count > most:
        raise TooLarge(
            f"input `{name}` expects at most {most} numbers, its shape {shown(list(shape))} has"
            f" {shown(count)}"
        )
    return count


def from_raw(spec: TensorSpec, shape: Sequence[int], data: memoryview | bytes) -> np.ndarray:
    """Return the tensor whose elements lie in `data`, row by row; a view of it where that can be.

    An element of BYTES is its length, 4 bytes, and that many bytes of UTF-8.

    Raises:
        BadRequest: more or fewer bytes than the shape holds, or bytes that aren't of the type.
    """
    datatype, count = name_of(spec.dtype), math.prod(shape)
    if datatype == BYTES:
        return _from_texts(_texts(spec.name, memoryview(data), count), shape)
    dtype = NUMPY[datatype]
    if len(data) != count * dtype.itemsize:
        raise BadRequest(
            f"input `{spec.name}` expects {count * dtype.itemsize} bytes for {datatype} of shape"
            f" {shown(list(shape))}, got {len(data)}"
        )
    if datatype == "BOOL":
        _refuse_half_truths(spec.name, data)
    array = np.frombuffer(data, dtype).reshape(shape)
    # the tensor begins where the JSON happens to end; engines expect numbers at their own bounds
    return array if array.flags.aligned else array.copy()


def from_values(spec: TensorSpec, shape: Sequence[int], data: Any) -> np.ndarray:
    """Return the tensor of these values, which come flat or nested as the shape says.

    Raises:
        BadRequest: another number of values, values of another type or out of the type's range,
            or a type that JSON doesn't carry.
    """
    datatype = name_of(spec.dtype)
    if datatype in BINARY_ONLY:
        raise BadRequest(
            f"input `{spec.name}` is {datatype}, which JSON has no notation for: send it as binary"
            " data"
        )
    flat = _flat(spec.name, shape, data)
    _refuse_other_types(spec.name, datatype, flat)
    if datatype == BYTES:
        return _from_texts(flat, shape)
    try:
        with np.errstate(over="ignore"):  # what becomes infinite is refused with the rest
            return np.array(flat, NUMPY[datatype]).reshape(shape)
    except OverflowError:
        raise BadRequest(_out_of_range(spec.name, datatype, flat)) from None


def to_raw(array: np.ndarray) -> bytes:
    """Return the elements as they go over the wire, row by row."""
    if name_of(array.dtype) != BYTES:
        return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    parts: list[bytes] = []
    for text in array.reshape(-1).tolist():
        encoded = text if isinstance(text, bytes) else str(text).encode()
        parts += (_LENGTH.pack(len(encoded)), encoded)
    return b"".join(parts)


def _texts(name: str, data: memoryview, count: int) -> list[str]:
    """Return the `count` texts that `data` holds, each behind its length."""
    found: list[str] = []
    at = 0
    while at < len(data) and len(found) <= count:
        if len(data) - at < _LENGTH.size:
            raise BadRequest(
                f"input `{name}` expects a length of 4 bytes at byte {at}, its data end"
            )
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if length > len(data) - at:
            raise BadRequest(
                f"input `{name}` says that element {len(found)} has {length} bytes, but"
                f" {len(data) - at} are left"
            )
        found.append(_decoded(name, data[at : at + length], len(found)))
        at += length
    if len(found) != count or at < len(data):
        came = "more" if len(found) > count or at < len(data) else str(len(found))
        raise BadRequest(f"input `{name}` expects {count} elements of BYTES, got {came}")
    return found


def _decoded(name: str, data: memoryview, at: int) -> str:
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError:
        raise BadRequest(
            f"input `{name}` expects UTF-8 in its BYTES, element {at} isn't: {shown(bytes(data))}"
        ) from None


def _from_texts(texts: list[str], shape: Sequence[int]) -> np.ndarray:
    array = np.empty(len(texts), object)
    array[:] = texts
    return array.reshape(shape)


def _refuse_half_truths(name: str, data: memoryview | bytes) -> None:
    raw = np.frombuffer(data, np.uint8)
    if raw.max(initial=0) > 1:
        at = int(np.argmax(raw > 1))
        raise BadRequest(f"input `{name}` expects bytes 0 or 1 in BOOL, got {raw[at]} at {at}")


def _flat(name: str, shape: Sequence[int], data: Any) -> list[Any]:
    """Return the values row by row; nested lists have to be as long as the shape says."""
    if not isinstance(data, list):
        raise BadRequest(f"input `{name}` expects an array as `data`, got {kind_of(data)}")
    level: list[Any] = data
    if len(shape) > 1 and level and isinstance(level[0], list):
        _expect_length(name, level, shape[0])
        for size in shape[1:]:
            for part in level:
                if not isinstance(part, list):
                    raise BadRequest(
                        f"input `{name}` expects `data` flat or nested as its shape"
                        f" {shown(list(shape))}, got {kind_of(part)} among arrays"
                    )
                _expect_length(name, part, size)
            level = list(chain.from_iterable(level))
        return level
    _expect_length(name, level, math.prod(shape))
    return level


def _expect_length(name: str, values: list[Any], size: int) -> None:
    if len(values) != size:
        raise BadRequest(
            f"input `{name}` expects {size} values in an array of its `data`, got {len(values)}"
        )


def _refuse_other_types(name: str, datatype: str, values: list[Any]) -> None:
    allowed, words = _allowed(datatype)
    if set(map(type, values)) <= allowed:
        return
    at, value = next((i, v) for i, v in enumerate(values) if type(v) not in allowed)
    raise BadRequest(
        f"input `{name}` expects {words} for {datatype}, got {kind_of(value)} at element {at}"
    )


def _allowed(datatype: str) -> tuple[set[type], str]:
    if datatype == BYTES:
        return {str}, "strings"
    if datatype == "BOOL":
        return {bool}, "true or false"
    return ({int, float}, "numbers") if datatype in FLOATS else ({int}, "whole numbers")


def _out_of_range(name: str, datatype: str, values: list[int]) -> str:
    if datatype in FLOATS:
        return f"input `{name}` expects numbers that {datatype} can hold, got a larger one"
    bounds = np.iinfo(NUMPY[datatype])
    at = next(i for i, value in enumerate(values) if not bounds.min <= value <= bounds.max)
    return (
        f"input `{name}` expects {datatype}, {bounds.min} to {bounds.max}, got"
        f" {shown(values[at])} at element {at}"
    )
