"""What waits to be written: taken in at once or refused, never more than fits."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from fettle.monitor.prediction import Label, Prediction


class Given(NamedTuple):
    """A label as it was given: for which request, what, and when (nanoseconds of the epoch)."""

    id: str
    value: Label
    time: int


@dataclass(frozen=True)
class Load:
    """What is written at once; `lost` counts what can't be, by kind."""

    predictions: list[Prediction] = field(default_factory=list)
    labels: list[Given] = field(default_factory=list)
    lost: Mapping[str, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.predictions or self.labels or self.lost)


class Waiting:
    """A bounded queue between the threads that serve and the one that writes.

    Attributes:
        taken: how many predictions and labels came in.
        lost: how many did not, by kind: "queue" and "labels" when it was full, "examples" for
            arrays that would have held too much memory while their rows were taken.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._lock = threading.Lock()
        self._predictions: list[Prediction] = []
        self._labels: list[Given] = []
        self._bytes = 0
        self._new: Counter[str] = Counter()
        self.taken = 0
        self.lost: Counter[str] = Counter()

    def put(self, prediction: Prediction) -> bool:
        """Take a row, or count it as lost."""
        size = _nbytes(prediction) if prediction.inputs is not None else 0
        with self._lock:
            if len(self._predictions) >= self._most:
                return self._lose("queue")
            if size and self._bytes + size > self._most_bytes:
                self._lose("examples")
                prediction, size = replace(prediction, inputs=None, outputs=None), 0
            self._bytes += size
            self._predictions.append(prediction)
            self.taken += 1
        return True

    def put_label(self, label: Given) -> bool:
        """Take a label, or count it as lost."""
        with self._lock:
            if len(self._labels) >= self._most:
                return self._lose("labels")
            self._labels.append(label)
            self.taken += 1
        return True

    def take(self) -> Load:
        """Return all that waits, and what was lost since the last time."""
        with self._lock:
            load = Load(self._predictions, self._labels, self._new)
            self._predictions, self._labels, self._new = [], [], Counter()
            self._bytes = 0
        return load

    def _lose(self, kind: str) -> bool:
        self.lost[kind] += 1
        self._new[kind] += 1
        return False


def _nbytes(prediction: Prediction) -> int:
    arrays = (*(prediction.inputs or {}).values(), *(prediction.outputs or {}).values())
    return sum(array.nbytes for array in arrays)
