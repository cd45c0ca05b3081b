"""Named arrays as the bytes of an `.npz`, without pickles: text and bfloat16 too.

An `.npz` knows numpy's own types. An array of text is kept as JSON, and one of bfloat16 by its
bits; the name of such a member says so: `text:input/x`.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping

import ml_dtypes
import numpy as np

from fettle.core.arrays import Arrays
from fettle.core.errors import DataError

_TEXT, _BITS = "text:", "bfloat16:"
_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def pack(sections: Mapping[str, Arrays | None]) -> bytes:
    """Return the arrays of named sections, such as `input` and `output`, as one archive.

    Raises:
        ValueError, TypeError: an array that holds anything but numbers and text.
    """
    members = {}
    for section, arrays in sections.items():
        for name, array in (arrays or {}).items():
            coding, plain = _plain(array)
            members[f"{coding}{section}/{name}"] = plain
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **members)
    return stream.getvalue()


def unpack(data: bytes) -> dict[str, Arrays]:
    """Return the arrays of each section that `pack` was given.

    Raises:
        DataError: no such archive, or a damaged one.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            members = {name: archive[name] for name in archive.files}
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"the arrays can't be read ({error}): they were damaged") from error
    sections: dict[str, dict[str, np.ndarray]] = {}
    for member, stored in members.items():
        if isinstance(stored, np.ndarray):
            section, name, array = _restored(member, stored)
            sections.setdefault(section, {})[name] = array
    return dict(sections)


def _plain(array: np.ndarray) -> tuple[str, np.ndarray]:
    if array.dtype == _BFLOAT16:
        return _BITS, array.view(np.uint16)
    if array.dtype.kind not in "OSU":
        return "", array
    text = json.dumps([array.shape, [_text(each) for each in array.ravel()]])
    return _TEXT, np.frombuffer(text.encode(), dtype=np.uint8)


def _text(element: object) -> str:
    if isinstance(element, bytes):
        return element.decode("utf-8", "surrogateescape")
    if isinstance(element, str):
        return element
    raise TypeError(f"an array of numbers or text was expected, it holds {type(element).__name__}")


def _restored(member: str, stored: np.ndarray) -> tuple[str, str, np.ndarray]:
    coding = next((c for c in (_TEXT, _BITS) if member.startswith(c)), "")
    section, _, name = member.removeprefix(coding).partition("/")
    if coding == _BITS:
        stored = stored.view(_BFLOAT16)
    elif coding == _TEXT:
        shape, elements = json.loads(stored.tobytes())
        stored = np.array([*elements, None], dtype=object)[:-1].reshape(shape)
    return section, name, stored
