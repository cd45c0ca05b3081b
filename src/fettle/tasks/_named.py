"""Examples of several named inputs, or of token ids: one structured array, a field an input.

So they are indexed, hashed and split like any other array.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fettle.core.arrays import TensorSpec
from fettle.core.errors import DataError
from fettle.tasks._arrays import check_finite, check_labels, labelled_alike
from fettle.tasks._data import ArrayExamples, Data, Preprocessing

MASK = "attention_mask"


def named_data(
    x: Mapping[str, Any],
    y: Any,
    test: tuple[Mapping[str, Any], Any] | None = None,
    *,
    classes: int | None = None,
    vocabulary: int = 0,
    labels: tuple[str, ...] = (),
    preprocessing: Preprocessing | None = None,
) -> Data:
    """Return named arrays as data, once they are found to be sound.

    Integers are token ids, masks and the like: they become int64 and must not be negative. Floats
    become float32. All go into the model as they are, in the order of `x`.

    Args:
        x: each input's values by its name, (n, …).
        y: class of each example, shape (n,), or values, (n,) or (n, k); None: there are no labels.
        test: the same of the source's own test set, with the same names.
        classes: how many there are; the largest label says, when this isn't given.
        vocabulary: how many token ids there are; 0: the largest says.
        labels: names of the classes.
        preprocessing: how raw values became these, where that is worth keeping.

    Raises:
        DataError: of the wrong shape, or invalid.
    """
    pairs = {"": (x, y)} if test is None else {"train ": (x, y), "test ": test}
    parts = {name: _examples(*pair, name) for name, pair in pairs.items()}
    kinds = {part.x.dtype for part in parts.values()}
    if len(kinds) > 1:
        raise DataError(f"train and test examples were expected to be alike, got {kinds}")
    count, parts = labelled_alike(parts, classes or len(labels) or None)
    words = _check_vocabulary({name: part.x for name, part in parts.items()}, vocabulary)
    pool, *rest = parts.values()
    return Data(
        pool,
        count,
        rest[0] if rest else None,
        preprocessing or Preprocessing(),
        labels,
        vocabulary=words,
    )


def pack(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return arrays (n, …) as one structured array (n,)."""
    fields = [(name, array.dtype, array.shape[1:]) for name, array in arrays.items()]
    rows = len(next(iter(arrays.values())))
    packed = np.empty(rows, dtype=np.dtype(fields))
    for name, array in arrays.items():
        packed[name] = array
    return packed


def unpack(packed: np.ndarray) -> dict[str, np.ndarray]:
    """Return the fields of a structured array (n,) as arrays (n, …)."""
    return {name: np.ascontiguousarray(packed[name]) for name in packed.dtype.names or ()}


def specs(kind: np.dtype[Any], variable: bool = False) -> tuple[TensorSpec, ...]:
    """Return the inputs that a structured type stands for, batch dimension −1.

    With `variable`, the length is −1 too.
    """
    found = [(name, *kind[name].subdtype) for name in kind.names or ()]  # type: ignore[misc]
    shapes = {name: (-1, *shape[1:]) if variable else shape for name, _, shape in found}
    return tuple(TensorSpec(name, base.name, (-1, *shapes[name])) for name, base, _ in found)


def trimmed(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the inputs (n, length, …) without what is padding in every example."""
    used = np.flatnonzero(inputs[MASK].any(axis=0))
    length = int(used[-1]) + 1 if len(used) else 1
    return {name: np.ascontiguousarray(array[:, :length]) for name, array in inputs.items()}


def _examples(x: Mapping[str, Any], y: Any, prefix: str) -> ArrayExamples:
    arrays = {name: _check_input(np.asarray(a), f"{prefix}{name}") for name, a in x.items()}
    targets = check_labels(y, f"{prefix}y", len(next(iter(arrays.values()), ())))
    for name, array in arrays.items():
        if len(array) != len(targets):
            raise DataError(
                f"`{prefix}{name}` has {len(array)} examples but `{prefix}y` has {len(targets)};"
                " pair them up"
            )
    return ArrayExamples(pack(arrays), targets)


def _check_input(array: np.ndarray, name: str) -> np.ndarray:
    if array.ndim < 2 or 0 in array.shape:
        raise DataError(
            f"`{name}` expects examples of shape (n, …), none of it empty, got {list(array.shape)}"
        )
    if array.dtype.kind in "iub":
        if array.min() < 0 or array.max() > np.iinfo(np.int64).max:
            raise DataError(
                f"`{name}` expects token ids or other whole numbers from 0 on, got"
                f" {int(array.min())} … {int(array.max())}"
            )
        return array.astype(np.int64)
    if array.dtype.kind != "f":
        raise DataError(f"`{name}` expects whole numbers or floats, got {array.dtype}; convert it")
    with np.errstate(over="ignore"):
        narrow = array.astype(np.float32)
    check_finite(narrow, name)
    return narrow


def _check_vocabulary(parts: Mapping[str, np.ndarray], vocabulary: int) -> int:
    """Return the number of token ids; 0 where no input is an integer."""
    found = 0
    for prefix, packed in parts.items():
        for name, array in unpack(packed).items():
            most = int(array.max()) if array.dtype.kind == "i" else -1
            limit = 2 if name == MASK else vocabulary
            if limit and most >= limit:
                raise DataError(
                    f"`{prefix}{name}` expects whole numbers 0 … {limit - 1}, got {most}; mend"
                    " them, or give the size of the vocabulary that they are of"
                )
            found = max(found, most + 1)
    return vocabulary or found
