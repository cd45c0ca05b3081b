"""What stands in the cells of a table, and which of its columns is what."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from fettle.core.errors import DataError

TEXTS = ("id", "model", "version", "sha", "route", "protocol", "status", "key", "error")
_MICROSECONDS = {
    "queue_us": ("queue",),
    "compute_us": ("compute",),
    "total_us": ("total", "latency"),
}
_SCALES = {"us": 1.0, "ms": 1e3, "s": 1e6}
_ALIASES = {
    "time": ("time", "timestamp"),
    "top": ("top", "prediction", "predicted"),
    "label": ("label", "target", "actual"),
    "confidence": ("confidence", "probability"),
    "agreement": ("agreement",),
    "batch": ("batch",),
}
# the last second, millisecond and microsecond that a number without a unit may be
_EPOCHS = ((10**11, 10**9), (10**14, 10**6), (10**17, 10**3))

KNOWN = (
    *TEXTS,
    *(name for names in _ALIASES.values() for name in names),
    *(f"{n}_{unit}" for names in _MICROSECONDS.values() for n in names for unit in _SCALES),
)


class Columns:
    """Where in a row what stands.

    Attributes:
        features: names of columns that no log has.
        classes: numbers of classes that are told by their names, in the order they came.

    Raises:
        DataError: no column says when, what was predicted, or how long it took.
    """

    def __init__(self, names: Sequence[str]) -> None:
        places = {name.strip().lower(): at for at, name in enumerate(names)}
        self._texts = {name: places[name] for name in TEXTS if name in places}
        self._plain = {name: _first(places, aliases) for name, aliases in _ALIASES.items()}
        self._durations = {
            name: _first_scaled(places, aliases) for name, aliases in _MICROSECONDS.items()
        }
        if not any(self.has(name) for name in ("time", "top", "label", "total_us", "confidence")):
            raise DataError(
                f"no column is known among {', '.join(names) or 'none'}: name them as in a log,"
                f" e.g. time, latency_ms, prediction, label ({', '.join(KNOWN)})"
            )
        self.features = tuple(name for name in names if name.strip().lower() not in KNOWN)
        self.classes: dict[str, int] = {}

    def has(self, name: str) -> bool:
        """Say whether there is such a column."""
        if name in self._durations:
            return self._durations[name] is not None
        return name in self._texts or self._plain.get(name) is not None

    def text(self, row: Sequence[Any], name: str, default: str = "") -> str:
        """Return a text; the default where there is none."""
        at = self._texts.get(name)
        return default if at is None or row[at] in ("", None) else str(row[at])

    def number(self, row: Sequence[Any], name: str) -> float | None:
        """Return a number; None where there is none.

        Raises:
            DataError: something else stands there.
        """
        at = self._plain[name]
        return None if at is None else _number(row[at], name)

    def duration(self, row: Sequence[Any], name: str) -> int | None:
        """Return a duration in microseconds; None where there is none.

        Raises:
            DataError: something else stands there, or a time that went backwards.
        """
        where = self._durations[name]
        if where is None:
            return None
        at, scale = where
        found = _number(row[at], name)
        if found is not None and found < 0:
            raise DataError(f"column `{name}` expects a duration, got {found:g}")
        return None if found is None else round(found * scale)

    def answer(self, row: Sequence[Any], name: str) -> float | int | None:
        """Return a predicted or true value; a class that is told by its name gets a number."""
        at = self._plain[name]
        if at is None or row[at] in ("", None):
            return None
        try:
            found = _number(row[at], name)
        except DataError:
            return self.classes.setdefault(str(row[at]), len(self.classes))
        return int(found) if found is not None and found == int(found) else found

    def time_ns(self, row: Sequence[Any]) -> int | None:
        """Return the time in nanoseconds of the epoch; None where there is no such column.

        Numbers are seconds, milliseconds, microseconds or nanoseconds, whichever gives a date in
        this age; text is ISO 8601, in UTC where it names no zone.

        Raises:
            DataError: something else stands there.
        """
        at = self._plain["time"]
        return None if at is None else _time(row[at])


def _first(places: dict[str, int], names: Sequence[str]) -> int | None:
    return next((places[name] for name in names if name in places), None)


def _first_scaled(places: dict[str, int], names: Sequence[str]) -> tuple[int, float] | None:
    found = (
        (places[f"{name}_{unit}"], scale)
        for name in names
        for unit, scale in _SCALES.items()
        if f"{name}_{unit}" in places
    )
    return next(found, None)


def _number(cell: Any, name: str) -> float | None:
    if cell is None or cell == "":
        return None
    try:
        found = float(cell)
    except (TypeError, ValueError):
        raise DataError(f"column `{name}` expects a number, got {str(cell)[:40]!r}") from None
    if math.isinf(found):
        raise DataError(f"column `{name}` expects a finite number, got {found}")
    return None if math.isnan(found) else found


def _time(cell: Any) -> int:
    if isinstance(cell, datetime):
        return _epoch(cell)
    try:
        return _whole(cell)
    except (ArithmeticError, ValueError):
        pass
    try:
        return _epoch(datetime.fromisoformat(str(cell).strip()))
    except ValueError:
        raise DataError(
            f"column `time` expects a number or ISO 8601, got {str(cell)[:40]!r}"
        ) from None


def _whole(cell: Any) -> int:
    exact = Decimal(str(cell))  # nanoseconds don't fit into a float
    if not exact.is_finite():
        raise ValueError
    return int(exact * next((scale for last, scale in _EPOCHS if abs(exact) < last), 1))


def _epoch(moment: datetime) -> int:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    past = aware - datetime(1970, 1, 1, tzinfo=UTC)
    return ((past.days * 86_400 + past.seconds) * 10**6 + past.microseconds) * 1000
