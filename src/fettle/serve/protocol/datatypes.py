"""The protocol's data types and numpy's."""

from __future__ import annotations

import functools

import ml_dtypes
import numpy as np

BYTES = "BYTES"
NUMPY: dict[str, np.dtype] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    BYTES: np.dtype(object),
}
"""Type of the protocol to numpy's, little-endian as on the wire; an element of BYTES is a `str`."""

FLOATS = frozenset({"FP16", "BF16", "FP32", "FP64"})
BINARY_ONLY = frozenset({"FP16", "BF16"})
"""Types that JSON doesn't carry: the protocol has no notation for them."""

_NAMES = {dtype: name for name, dtype in NUMPY.items()}


@functools.cache  # asked several times for each request
def name_of(dtype: np.dtype | str) -> str:
    """Return the protocol's name of a numpy type.

    Example:
        >>> name_of("float32"), name_of("object")
        ('FP32', 'BYTES')

    Raises:
        KeyError: the protocol has no such type.
    """
    found = np.dtype(dtype)
    return BYTES if found.kind in "OSU" else _NAMES[found]
