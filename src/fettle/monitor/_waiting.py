"""What waits to be written: taken in at once or refused, never more than fits."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from fettle.monitor.answered import Answered, nbytes
from fettle.monitor.prediction import Label, Prediction

_SMALL = 1 << 16  # bytes of outputs, of which a class may be wanted


class Given(NamedTuple):
    """A label as it was given: for which request, what, and when (nanoseconds of the epoch)."""

    id: str
    value: Label
    time: int


@dataclass(frozen=True)
class Load:
    """What is written at once; `lost` counts what can't be, by kind.

    Of what was `answered`, predictions are still to be made.
    """

    answered: list[Answered] = field(default_factory=list)
    predictions: list[Prediction] = field(default_factory=list)
    labels: list[Given] = field(default_factory=list)
    lost: Mapping[str, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.answered or self.predictions or self.labels or self.lost)


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
        self._answered: list[Answered] = []
        self._predictions: list[Prediction] = []
        self._labels: list[Given] = []
        self._bytes = 0
        self._new: Counter[str] = Counter()
        self.taken = 0
        self.lost: Counter[str] = Counter()

    def put(self, prediction: Prediction) -> bool:
        """Take a row, or count it as lost."""
        size = nbytes(prediction.inputs, prediction.outputs) if prediction.inputs else 0
        with self._lock:
            if self._full:
                return self._lose("queue")
            if size and self._bytes + size > self._most_bytes:
                self._lose("examples")
                prediction, size = replace(prediction, inputs=None, outputs=None), 0
            self._bytes += size
            self._predictions.append(prediction)
            self.taken += 1
        return True

    def put_answered(self, seen: Answered, with_arrays: bool) -> bool:
        """Take what was seen, or count it as lost; `with_arrays` if they are to be kept."""
        size = nbytes(seen.inputs, seen.outputs)
        with self._lock:
            if self._full:
                return self._lose("queue")
            if self._bytes + size > self._most_bytes:
                if with_arrays:
                    self._lose("examples")
                seen, size = _without_arrays(seen), 0
            self._bytes += size
            self._answered.append(seen)
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
            load = Load(self._answered, self._predictions, self._labels, self._new)
            self._answered, self._predictions, self._labels = [], [], []
            self._new, self._bytes = Counter(), 0
        return load

    @property
    def _full(self) -> bool:
        return len(self._answered) + len(self._predictions) >= self._most

    def _lose(self, kind: str) -> bool:
        self.lost[kind] += 1
        self._new[kind] += 1
        return False


def _without_arrays(seen: Answered) -> Answered:
    small = nbytes(None, seen.outputs) <= _SMALL
    return seen._replace(inputs={}, outputs=seen.outputs if small else None)
