"""Rows of a log as columns: what statistics are computed from, a piece at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

NUMBERS = ("batch", "queue_us", "compute_us", "total_us", "top", "confidence", "agreement")
TEXTS = ("id", "key", "error", "label")
COLUMNS = ("time", "origin", *NUMBERS, *TEXTS)


class Origin(NamedTuple):
    """What thousands of rows share: who was asked, who answered, why that one, and how it went."""

    model: str
    version: str
    sha: str
    route: str
    protocol: str
    status: str


@dataclass(frozen=True, eq=False)
class Frame:
    """Columns of equal length, of which each row is a prediction.

    Attributes:
        columns: "time" in nanoseconds of the epoch and "origin", a number of `origins`, both
            int64; numbers in float64, NaN where there is none; text and labels as objects, a
            label None where there is none.
        origins: by their numbers.
    """

    columns: Mapping[str, np.ndarray]
    origins: Mapping[int, Origin]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]

    def take(self, which: np.ndarray | slice) -> Frame:
        """Return some of the rows: by a mask, by indices, or a slice."""
        return Frame({name: c[which] for name, c in self.columns.items()}, self.origins)

    def where(self, **values: str) -> Frame:
        """Return the rows of origins with these values.

        Example:
            >>> one = {1: Origin("m", "1", "", "a", "rest", "ok")}
            >>> len(Frame({"origin": np.array([1, 1])}, one).where(route="b"))
            0
        """
        fit = [n for n, o in self.origins.items() if values.items() <= o._asdict().items()]
        return self.take(np.isin(self["origin"], fit))


def column(name: str, values: Sequence[Any]) -> np.ndarray:
    """Return a column of the type that its name asks for."""
    if name in ("time", "origin"):
        return np.array(values, dtype=np.int64)
    if name in NUMBERS:
        return np.array(values, dtype=np.float64)
    found = np.empty(len(values), dtype=object)
    found[:] = values
    return found


def joined(frames: Sequence[Frame]) -> Frame:
    """Return the rows of all frames, of which there is at least one, one after another."""
    if len(frames) == 1:
        return frames[0]
    names = frames[0].columns
    columns = {name: np.concatenate([frame[name] for frame in frames]) for name in names}
    return Frame(columns, frames[-1].origins)
