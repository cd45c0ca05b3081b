"""What a benchmark says, as lines: groups of the same batch and threads, fastest first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
_GROUP = ("batch", "threads", "concurrency")


@dataclass(frozen=True)
class Span:
    """A number with its interval; the bounds are None where the samples can't bound it."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Line:
    """One row that ran: `behind` is its time over that of the group's fastest.

    `same` says that the two can't be told apart: the ratio is within the noise floor, or its
    interval holds 1.
    """

    row: Row
    best: bool
    same: bool
    behind: Span | None

    @property
    def name(self) -> str:
        """Artifact and engine."""
        return label_of(self.row)

    def latency(self, key: str) -> Span | None:
        """Return a percentile or the mean in milliseconds, with its interval."""
        found = self.row["latency_ms"]
        value = found.get(key)
        if value is None:
            return None
        bounds = (found.get("intervals") or {}).get(key)
        return Span(value, *bounds) if bounds else Span(value)


@dataclass(frozen=True)
class Group:
    """Rows that were timed against each other; `noise` is the artifact against itself."""

    batch: int
    threads: int
    concurrency: int
    lines: tuple[Line, ...]
    noise: Mapping[str, Any] | None

    @property
    def title(self) -> str:
        """What the rows share."""
        clients = f", {self.concurrency} clients" if self.concurrency > 1 else ""
        plural = "" if self.threads == 1 else "s"
        return f"batch {self.batch}, {self.threads} thread{plural}{clients}"

    @property
    def stray(self) -> float | None:
        """How far the noise floor reaches from 1, as a factor."""
        if not self.noise or self.noise["low"] <= 0:
            return None
        return float(max(self.noise["high"], 1 / self.noise["low"]))


def label_of(row: Row) -> str:
    """Return the name that the ratios call a row by."""
    return f"{row['subject']} @ {row['runtime']}"


def calls_of(row: Row) -> str:
    """Return how a file of a fixed batch answers another one, as `8 of 1`; empty for others."""
    fixed = row.get("fixed_batch")
    return "" if fixed in (None, row["batch"]) else f"{row['calls']} of {fixed}"


def groups_of(result: Mapping[str, Any]) -> list[Group]:
    """Return the rows that ran, by group in the order of the result, fastest first."""
    keys = dict.fromkeys(_key(row) for row in result["rows"])
    return [group for key in keys if (group := _group(result, key)).lines]


def refused_of(result: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return name, where and reason of what was refused; the same reason is told once."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in result["rows"]:
        if row["refused"]:
            found.setdefault((label_of(row), row["refused"]), []).append(f"batch {row['batch']}")
    return [
        (name, ", ".join(dict.fromkeys(where)), reason) for (name, reason), where in found.items()
    ]


def _key(row: Row) -> tuple[int, int, int]:
    batch, threads, concurrency = (int(row.get(name, 1)) for name in _GROUP)
    return batch, threads, concurrency


def _group(result: Mapping[str, Any], key: tuple[int, int, int]) -> Group:
    rows = [row for row in result["rows"] if _key(row) == key and row["latency_ms"]]
    rows.sort(key=_rank)
    ratios = [ratio for ratio in result.get("ratios", ()) if _key(ratio) == key]
    noises = [noise for noise in result.get("noises", ()) if _key(noise) == key]
    lines = tuple(_line(row, rows[0], ratios) for row in rows)
    return Group(*key, lines, noises[0] if noises else None)


def _rank(row: Row) -> float:
    """Return what the fastest has least of: latency, or the rate that was asked for, negated."""
    asked = (row.get("scenario") or {}).get("name")
    if asked in ("offline", "server"):
        return -float(row["throughput"])
    return float(row["latency_ms"]["p90" if asked == "single" else "p50"])


def _line(row: Row, best: Row, ratios: Sequence[Mapping[str, Any]]) -> Line:
    if row is best:
        return Line(row, best=True, same=False, behind=None)
    a, b = label_of(row), label_of(best)
    for ratio in ratios:
        if (ratio["a"], ratio["b"]) == (a, b):
            behind = Span(ratio["value"], ratio["low"], ratio["high"])
            return Line(row, False, not ratio.get("differs", True), behind)
        if (ratio["a"], ratio["b"]) == (b, a):
            behind = Span(1 / ratio["value"], 1 / ratio["high"], 1 / ratio["low"])
            return Line(row, False, not ratio.get("differs", True), behind)
    return Line(row, best=False, same=False, behind=None)
