"""The prediction log: every answer of a server in one SQLite file, off the path of requests.

```python
log = PredictionLog("predictions.db", LogSettings(sample=0.01, retention_days=14))
log.seen(prediction, inputs, outputs)      # returns at once
log.label("request-7", 3)                  # late, twice, or before the prediction
log.close()
for prediction in open_log("predictions.db").rows(): …
```

A thread of its own writes what waits, a few times a second. When the disk is full, or too slow, the
server goes on: what doesn't fit into the queue is counted, the count is written into the log as
soon as it can be, and so whoever reads it knows what it doesn't hold.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Annotated, Protocol, Self

from fettle.core.arrays import Arrays
from fettle.core.errors import InputError
from fettle.core.knobs import Range, Text, knobs_of
from fettle.monitor._preparing import prepared, sampled
from fettle.monitor._reading import LogFile, open_log
from fettle.monitor._redaction import redactor
from fettle.monitor._waiting import Given, Waiting
from fettle.monitor._writer import Writer
from fettle.monitor.answered import Answered
from fettle.monitor.prediction import Label, Prediction

__all__ = ["Counts", "Keeping", "LogFile", "LogSettings", "PredictionLog", "open_log"]

_MOST = 65_536  # rows: three seconds of 20,000 each
_MOST_BYTES = 256 << 20  # of sampled arrays
_MOST_TEXT = 1024  # characters of a label
_CLOSING_S = 10.0


class Keeping(Protocol):
    """What of a server's settings matters to its log; `LogSettings` is one."""

    @property
    def sample(self) -> float:
        """Share of predictions that are kept with their arrays."""

    @property
    def retention_rows(self) -> int:
        """Predictions, and labels, that are kept."""

    @property
    def retention_days(self) -> float:
        """Days for which they are kept."""

    @property
    def redact(self) -> str:
        """`FILE.py:FUNCTION`, called on each row before it is written; '' for none."""


@dataclass(frozen=True)
class LogSettings:
    """What a log keeps.

    Raises:
        KnobError: a knob out of its bounds.
    """

    sample: Annotated[float, Range(0, 1), "share of predictions kept with their arrays"] = 0.0
    retention_rows: Annotated[int, Range(1, 1 << 40), "predictions, and labels, kept"] = 1_000_000
    retention_days: Annotated[float, Range(0.001, 36500), "days for which they are kept"] = 30.0
    redact: Annotated[str, Text("FILE.py:FUNCTION"), "called on each row before it is written"] = ""

    def __post_init__(self) -> None:
        for knob in knobs_of(type(self)):
            object.__setattr__(self, knob.name, knob.check("log", getattr(self, knob.name)))


@dataclass(frozen=True)
class Counts:
    """How a log is doing: `taken` is `written` + `waiting` + what was lost after it was taken.

    Attributes:
        taken: predictions and labels that came in.
        written: those that the file holds, or held until they were too old.
        waiting: those still to be written.
        lost: what the log doesn't hold, by kind: "queue" and "labels" (it was full), "examples"
            (a row without its arrays), "unfit" (no value of SQLite's), "omitted" and "redaction"
            (the hook withheld it, or failed).
        trouble: why nothing can be written now; '' for none.
    """

    taken: int
    written: int
    waiting: int
    lost: dict[str, int]
    trouble: str


class PredictionLog:
    """Writes predictions and labels into the log in file `path`, which is made where there is none.

    It observes a service: all but `flush` and `close` return at once, from any thread.

    Args:
        path: of the file; `-wal` and `-shm` lie beside it while it is written.
        settings: what is kept.
        most: predictions that wait to be written at once; as many again while the disk fails.

    Raises:
        StorageError: the file can't be made or written.
        DataError: the file is something else, or of a schema that isn't known.
        InputError: the redaction hook can't be loaded.
    """

    def __init__(
        self, path: str | Path, settings: Keeping | None = None, most: int = _MOST
    ) -> None:
        keeping = settings or LogSettings()
        self.path = Path(path)
        self._sample = keeping.sample
        self._waiting = Waiting(most, _MOST_BYTES)
        self._writer = Writer(
            self.path,
            self._waiting,
            partial(prepared, sample=keeping.sample, redact=redactor(keeping.redact)),
            keeping.retention_rows,
            keeping.retention_days,
        )

    def tell(self, seen: Answered) -> None:
        """Log what a service saw; the rows are made by the thread that writes them.

        This is the quickest way into the log: it needs no channel of the service's.
        """
        self._waiting.put_answered(seen, self._chosen(seen.id))

    def seen(self, prediction: Prediction, inputs: Arrays, outputs: Arrays | None) -> None:
        """Log a prediction; with its arrays, if its id is one of the sample."""
        if self._chosen(prediction.id):
            prediction = replace(prediction, inputs=inputs, outputs=outputs)
        self.add(prediction)

    def add(self, prediction: Prediction) -> bool:
        """Log a prediction as it is; return whether it was taken, not counted as lost.

        A label that it brings is kept like one that was given for its id.
        """
        if prediction.label is not None:
            self.label(prediction.id, prediction.label, prediction.time)
        return self._waiting.put(prediction)

    def label(self, request: str, value: Label, time_ns: int | None = None) -> bool:
        """Keep what was right for a request; of several, the one with the latest time.

        Args:
            request: its id; the prediction may come later.
            value: a class or its name, or a number.
            time_ns: when it was given, in nanoseconds of the epoch; None for now.

        Returns:
            Whether it was taken: not so while the disk fails and too many wait.

        Raises:
            InputError: no finite number of 64 bits, and no text of at most 1024 characters.
        """
        given = time.time_ns() if time_ns is None else time_ns
        return self._waiting.put_label(Given(request, _checked(value), given))

    @property
    def counts(self) -> Counts:
        """How it is doing."""
        taken, written, lost = self._waiting.taken, self._writer.written, self._writer.lost.copy()
        gone = sum(lost[kind] for kind in ("unfit", "redaction", "omitted"))
        waiting = max(0, taken - written - gone)
        kinds = {kind: count for kind, count in (lost + self._waiting.lost).items() if count}
        return Counts(taken, written, waiting, kinds, self._writer.trouble)

    @property
    def dropped(self) -> int:
        """How many predictions it was too slow for."""
        return self._waiting.lost["queue"]

    @property
    def failed(self) -> int:
        """How many rows and labels are nothing that can be stored."""
        return self._writer.lost["unfit"]

    def flush(self, seconds: float = _CLOSING_S) -> bool:
        """Write what waits, at most for so long; return whether all is written."""
        return self._writer.flush(seconds)

    def close(self, seconds: float = _CLOSING_S) -> bool:
        """Write what waits, at most for so long, and end; return whether all was written."""
        return self._writer.close(seconds)

    def _chosen(self, request: str) -> bool:
        return bool(self._sample) and sampled(request, self._sample)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _checked(value: Label) -> Label:
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, str) and len(value) <= _MOST_TEXT:
        return value
    raise InputError(
        f"a label expects a finite number of 64 bits or a text of at most {_MOST_TEXT} characters,"
        f" got {str(value)[:80]!r} ({type(value).__name__})"
    )
