"""The JSON part of a request, parsed strictly: one object, no key twice, not nested too deeply."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import orjson

from fettle.serve.errors import BadRequest
from fettle.serve.protocol.wording import kind_of, shown

_DEEPEST = 16  # levels beside a tensor's data, which is held against its shape
_DATA = "data"


def parse(text: bytes | memoryview) -> dict[str, Any]:
    """Return the JSON object `text`.

    Raises:
        BadRequest: it is no JSON, no object, has a key twice in one object, or is nested too
            deeply.
    """
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadRequest(
            f"a JSON object was expected, got what isn't JSON: {_where(error)}"
        ) from None
    if not isinstance(document, dict):
        raise BadRequest(f"a JSON object was expected, got {kind_of(document)}")
    _refuse_repeated_keys(text, document)
    return document


def _where(error: orjson.JSONDecodeError) -> str:
    return f"{error.msg} (line {error.lineno}, column {error.colno})"


def _refuse_repeated_keys(text: bytes | memoryview, document: dict[str, Any]) -> None:
    r"""Raise BadRequest if a key came twice, of which the parser kept the last.

    In JSON a colon stands behind each key, or in a string. If the text has as many as the parsed
    keys and strings account for, no key was dropped; a colon that is written as `\u003a` would
    upset the count. Only where it doesn't come out even is the text parsed anew, slowly. A
    tensor's own data may be left out: what isn't numbers there doesn't come out even.
    """
    raw = bytes(text)
    if raw.count(b":") != sum(_colons(document)) or b"\\u003" in raw:
        try:
            json.loads(raw, object_pairs_hook=_without_repeats)
        except RecursionError:
            raise _too_deep() from None
        except ValueError as error:  # a number of more digits than Python reads
            raise BadRequest(f"a JSON object was expected, got {shown(str(error))}") from None


def _colons(document: dict[str, Any]) -> Iterator[int]:
    """Count the colons that the parsed keys and strings account for, part by part."""
    level: list[Any] = [document]
    for _ in range(_DEEPEST):
        below: list[Any] = []
        for value in level:
            if isinstance(value, str):
                yield value.count(":")
            elif isinstance(value, list):
                below += value
            elif isinstance(value, dict):
                yield len(value) + sum(key.count(":") for key in value)
                below += (each for key, each in value.items() if key != _DATA)
        level = below
    if any(isinstance(value, list | dict) for value in level):
        raise _too_deep()


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise BadRequest(f"each key was expected once in a JSON object, got {shown(twice)} twice")
    return found


def _too_deep() -> BadRequest:
    return BadRequest(f"JSON nested at most {_DEEPEST} levels deep was expected, got more")
