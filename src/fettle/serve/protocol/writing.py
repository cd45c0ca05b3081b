"""From arrays to the body of an HTTP answer: JSON, and tensors as bytes after it."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

from fettle.core.arrays import Arrays
from fettle.serve.errors import Broken
from fettle.serve.protocol.classification import classify
from fettle.serve.protocol.datatypes import BYTES, FLOATS, name_of
from fettle.serve.protocol.request import InferResponse, Wanted
from fettle.serve.protocol.tensors import to_raw


def write_infer(response: InferResponse) -> tuple[bytes, int | None]:
    """Return the body of an answer, and how many bytes of it are JSON if bytes follow.

    Raises:
        Broken: JSON was asked for numbers that it has no notation for: infinite ones.
    """
    entries: list[dict[str, Any]] = []
    tail: list[bytes] = []
    for wanted, array in chosen(response):
        entry: dict[str, Any] = {
            "name": wanted.name,
            "datatype": name_of(array.dtype),
            "shape": list(array.shape),
        }
        if wanted.binary:
            raw = to_raw(array)
            entry["parameters"] = {"binary_data_size": len(raw)}
            tail.append(raw)
        else:
            entry["data"] = _values(wanted.name, array)
        entries.append(entry)
    head = orjson.dumps(_document(response, entries), option=orjson.OPT_SERIALIZE_NUMPY)
    if not any(wanted.binary for wanted in wanted_of(response)):
        return head, None
    return b"".join((head, *tail)), len(head)


def wanted_of(response: InferResponse) -> tuple[Wanted, ...]:
    """Return what goes back, in order: all outputs as JSON where nothing was named."""
    return response.wanted or tuple(map(Wanted, response.outputs))


def chosen(response: InferResponse) -> list[tuple[Wanted, np.ndarray]]:
    """Return what goes back with its array: the numbers, or the highest classes."""
    return [
        (each, _answer(each, response.outputs, response.labels)) for each in wanted_of(response)
    ]


def _answer(wanted: Wanted, outputs: Arrays, labels: tuple[str, ...]) -> np.ndarray:
    array = outputs[wanted.name]
    return classify(array, wanted.classification, labels) if wanted.classification else array


def _document(response: InferResponse, outputs: list[dict[str, Any]]) -> dict[str, Any]:
    document: dict[str, Any] = {
        "model_name": response.model,
        "model_version": response.version,
        "id": response.id,
        "outputs": outputs,
    }
    if response.parameters:
        document["parameters"] = dict(response.parameters)
    return document


def _values(name: str, array: np.ndarray) -> Any:
    """Return what the JSON writer takes: the numbers flat, row by row."""
    datatype = name_of(array.dtype)
    if datatype == BYTES:
        return [
            each.decode() if isinstance(each, bytes) else str(each)
            for each in array.reshape(-1).tolist()
        ]
    if datatype in FLOATS and not np.isfinite(array).all():
        raise Broken(
            f"output `{name}` holds numbers that aren't finite, which JSON can't carry; ask for it"
            " as binary data to see them"
        )
    return np.ascontiguousarray(array).reshape(-1)
