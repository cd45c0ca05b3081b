"""Labels that are values: from whatever a source read, and spread alike over the splits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fettle.core.errors import DataError
from fettle.tasks._data import Data

_STRATA = 10


def with_values(data: Data, kind: str) -> Data:
    """Return the data with floats as labels; classes that are numbers count as these numbers.

    Raises:
        DataError: there are no labels, or they are words.
    """
    if not data.labelled:
        raise DataError(
            f"`{kind}` expects a number as the label of each example, got none; give labels, or"
            " use `--task agreement` or `--task fidelity`, which need none"
        )
    valued = data.relabelled(lambda part, _: _valued(part.y, data.labels, kind))
    return replace(valued, labels=())


def columns(y: np.ndarray) -> np.ndarray:
    """Return labels (n,) or (n, values) as (n, values)."""
    return y.reshape(len(y), -1)


def tenths(y: np.ndarray) -> np.ndarray:
    """Return for each example to which tenth of the (first) values it belongs, shape (n,)."""
    ranks = columns(y)[:, 0].argsort(kind="stable").argsort(kind="stable")
    return np.asarray(ranks * _STRATA // len(ranks))


def _valued(y: np.ndarray, names: tuple[str, ...], kind: str) -> np.ndarray:
    if y.dtype.kind == "f":
        return y
    try:
        values = np.array([float(name) for name in names]) if names else None
    except ValueError as error:
        raise DataError(
            f"`{kind}` expects numbers as labels, got words such as `{names[0]}`; use"
            " `--task classification`"
        ) from error
    return y.astype(np.float64) if values is None else values[y]
