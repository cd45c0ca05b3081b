"""Whether inputs vary, told from what goes by: constants have no range to calibrate on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from fettle.core.arrays import Arrays
from fettle.core.progress import Reporter


def watched(batches: Iterable[Arrays], progress: Reporter) -> Iterator[Arrays]:
    """Yield the batches; at their end, say which float inputs had one value throughout."""
    seen: dict[str, tuple[float, float]] = {}
    for inputs in batches:
        for name, array in inputs.items():
            if array.dtype.kind == "f" and array.size:
                low, high = seen.get(name, (np.inf, -np.inf))
                seen[name] = min(low, float(array.min())), max(high, float(array.max()))
        yield inputs
    for name, (low, high) in seen.items():
        if low == high:
            progress.say(
                f"the calibration input `{name}` is {low:g} throughout, which says nothing of the"
                " ranges of others: give real examples"
            )
