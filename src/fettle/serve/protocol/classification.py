"""The classification extension: the highest classes instead of the numbers.

Each is a text `VALUE:INDEX`, or `VALUE:INDEX:LABEL` where the model has labels.

Specification: Triton's classification extension (server/docs/protocol).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def classify(output: np.ndarray, count: int, labels: Sequence[str] = ()) -> np.ndarray:
    """Return the `count` highest classes of each row as texts, the highest first.

    Args:
        output: numbers of shape (n, …); all but the first dimension are its classes.
        count: how many are wanted; all where there are fewer.
        labels: names of the classes, as far as there are any.

    Returns:
        Texts of shape (n, min(count, classes)). Among equals the lower index comes first.

    Example:
        >>> classify(np.array([[0.25, 0.75]]), 1, ["cat", "dog"]).tolist()
        [['0.750000:1:dog']]
    """
    rows = output.reshape(len(output), -1)
    # sorted from the far end, so that a stable sort turned round keeps the lower index first
    order = rows.shape[1] - 1 - np.argsort(rows[:, ::-1], axis=1, kind="stable")[:, ::-1]
    top = order[:, :count]
    texts = np.empty(top.shape, object)
    for (row, place), found in np.ndenumerate(top):
        index = int(found)
        label = f":{labels[index]}" if index < len(labels) else ""
        texts[row, place] = f"{rows[row, index]:f}:{index}{label}"
    return texts
