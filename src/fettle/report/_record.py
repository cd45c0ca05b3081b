"""A result, read once at the edge: tolerant of what is missing, deaf to what is malformed.

Everything behind this module works on typed values; a number that can't have been measured counts
as missing, and text loses its control characters, so that no name can drive a terminal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fettle.core.errors import InputError

SCHEMA = 1
_LARGEST = 1e18  # bytes, milliseconds, operations: nothing here comes near


@dataclass(frozen=True)
class Interval:
    """A value and its bounds; a bound that is unknown equals the value."""

    value: float
    low: float
    high: float
    n: int | None = None

    @property
    def bounded(self) -> bool:
        """Whether the bounds say more than the value does."""
        return self.low < self.high


@dataclass(frozen=True)
class Latency:
    """Percentiles of one call's time in milliseconds; `p99` is None below 1,000 samples."""

    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    mean: float | None
    n: int | None
    batch: int | None
    threads: int | None


@dataclass(frozen=True)
class Stage:
    """One stage of a trial; `seconds` were spent in an earlier run when it is cached."""

    name: str
    seconds: float
    cached: bool


@dataclass(frozen=True)
class Trial:
    """One candidate: a recipe on a runtime, and what was measured of it."""

    name: str
    recipe: str
    runtime: str
    precision: str
    metric: Interval | None
    split: str
    latency: Latency
    throughput: float | None
    size_bytes: float | None
    peak_memory_bytes: float | None
    macs: float | None
    sparsity: float | None
    drop: Interval | None
    test: str
    speedup: Mapping[str, Interval]
    stages: tuple[Stage, ...]
    bundle: str
    refused: str

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells one trial from another."""
        return self.recipe, self.runtime, self.precision

    @property
    def line(self) -> str:
        """The whole recipe in one line, its runtime included."""
        steps = self.recipe or "unchanged"
        if steps.startswith("@"):
            return f"unchanged {steps}"
        return steps if " @ " in steps or not self.runtime else f"{steps} @ {self.runtime}"

    @property
    def title(self) -> str:
        """Name and runtime, for people."""
        return f"{self.name} on {self.runtime}" if self.runtime else self.name


@dataclass(frozen=True)
class Record:
    """The whole result."""

    command: str
    created: str
    model: str
    data: str
    seconds: float | None
    outcome: str
    text: str
    warning: str
    needed: int | None
    metric: str
    max_drop: float | None
    confidence: float
    baseline: Trial | None
    best: Trial | None
    frontier: tuple[Trial, ...]
    trials: tuple[Trial, ...]
    noise: Interval | None
    machine: Mapping[str, Any]
    fingerprints: Mapping[str, str]
    search: Mapping[str, Any]  # how a search went; empty where there was none

    @property
    def candidates(self) -> tuple[Trial, ...]:
        """Every trial once, with baseline, frontier and best when the list of trials lacks them."""
        named = (self.baseline, *self.frontier, self.best)
        found: dict[tuple[str, str, str], Trial] = {}
        for trial in (*self.trials, *(t for t in named if t)):
            found.setdefault(trial.key, trial)
        return tuple(found.values())

    @property
    def measured(self) -> tuple[Trial, ...]:
        """The candidates that ran, fastest first; those without a latency come last."""
        ran = (t for t in self.candidates if not t.refused)
        return tuple(sorted(ran, key=lambda t: (t.latency.p50 or math.inf, t.key)))

    def is_best(self, trial: Trial) -> bool:
        """Say whether `trial` is the one that the search chose."""
        return self.best is not None and trial.key == self.best.key

    def is_baseline(self, trial: Trial) -> bool:
        """Say whether `trial` is the model that everything is compared with."""
        return self.baseline is not None and trial.key == self.baseline.key


def read_record(result: Any) -> Record:
    """Read the JSON of `optimize --json`.

    Raises:
        InputError: it is no object, or of a schema that this fettle doesn't know.
    """
    if not isinstance(result, Mapping):
        raise InputError(
            f"`result` expects the object that `fettle optimize --json` prints, got"
            f" {type(result).__name__}; run it anew"
        )
    if result.get("schema", SCHEMA) != SCHEMA:
        raise InputError(
            f"`result` has schema {result['schema']!r}, this fettle reads {SCHEMA}: upgrade fettle"
        )
    budget = section(result, "budget")
    return Record(
        command=text(result.get("command")),
        created=text(result.get("created")),
        model=text(result.get("model")),
        data=text(result.get("data")),
        seconds=number(result.get("seconds")),
        outcome=text(result.get("verdict")),
        text=text(result.get("verdict_text")),
        warning=text(result.get("warning")),
        needed=integer(result.get("needed")),
        metric=text(budget.get("metric")) or "quality",
        max_drop=number(budget.get("max_drop")),
        confidence=number(budget.get("confidence")) or 0.95,
        baseline=_optional(result.get("baseline")),
        best=_optional(result.get("best")),
        frontier=_trials(result.get("frontier")),
        trials=_trials(result.get("trials")),
        noise=interval(result.get("noise")),
        machine=section(result, "machine"),
        fingerprints=texts(section(result, "fingerprints")),
        search=section(result, "search"),
    )


def read_trial(row: Mapping[str, Any]) -> Trial:
    """Read one row of the result."""
    recipe, metric, drop = text(row.get("recipe")), section(row, "metric"), section(row, "drop")
    speedup = {text(k): interval(v) for k, v in section(row, "speedup").items()}
    return Trial(
        name=text(row.get("name")) or recipe or "unchanged",
        recipe=recipe,
        runtime=text(row.get("runtime")),
        precision=text(row.get("precision")),
        metric=interval(metric),
        split=text(metric.get("split")),
        latency=_latency(section(row, "latency_ms")),
        throughput=number(row.get("throughput")),
        size_bytes=number(row.get("size_bytes")),
        peak_memory_bytes=number(row.get("peak_memory_bytes")),
        macs=number(row.get("macs")),
        sparsity=number(row.get("sparsity")),
        drop=interval(drop),
        test=text(drop.get("test")),
        speedup={name: found for name, found in speedup.items() if found},
        stages=tuple(_stage(stage) for stage in _mappings(row.get("stages"))),
        bundle=text(row.get("bundle")),
        refused=text(row.get("refused")),
    )


def number(value: Any) -> float | None:
    """Return a number that can have been measured as it is, anything else as None."""
    usable = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not usable or not abs(value) <= _LARGEST:
        return None
    return float(value) if abs(value) >= 1 / _LARGEST else 0.0


def integer(value: Any) -> int | None:
    """Return such a number as an integer, anything else as None."""
    found = number(value)
    return None if found is None else int(found)


def text(value: Any) -> str:
    """Return text without control characters; None and containers are empty."""
    plain = str(value) if isinstance(value, (str, int, float)) else ""
    return "".join(char if char.isprintable() else " " for char in plain).strip()


def texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the entries of a mapping that are text."""
    pairs = ((text(name), text(value)) for name, value in values.items())
    return {name: value for name, value in pairs if value}


def section(mapping: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the mapping called `name`, empty when there is none."""
    found = mapping.get(name)
    return found if isinstance(found, Mapping) else {}


def interval(value: Any) -> Interval | None:
    """Return `{value, low, high, n}`, or a bare number, as an Interval."""
    fields = value if isinstance(value, Mapping) else {"value": value}
    middle = number(fields.get("value"))
    if middle is None:
        return None
    low, high = number(fields.get("low")), number(fields.get("high"))
    return Interval(
        middle,
        middle if low is None else low,
        middle if high is None else high,
        integer(fields.get("n")),
    )


def _latency(row: Mapping[str, Any]) -> Latency:
    times = {name: number(row.get(name)) for name in ("p50", "p90", "p95", "p99", "mean")}
    return Latency(
        **times,
        n=integer(row.get("n")),
        batch=integer(row.get("batch")),
        threads=integer(row.get("threads")),
    )


def _stage(row: Mapping[str, Any]) -> Stage:
    seconds = max(number(row.get("seconds")) or 0.0, 0.0)
    return Stage(text(row.get("name")) or "stage", seconds, bool(row.get("cached")))


def _optional(row: Any) -> Trial | None:
    return read_trial(row) if isinstance(row, Mapping) and row else None


def _trials(rows: Any) -> tuple[Trial, ...]:
    return tuple(read_trial(row) for row in _mappings(rows))


def _mappings(rows: Any) -> list[Mapping[str, Any]]:
    listed = isinstance(rows, Sequence) and not isinstance(rows, str)
    return [row for row in rows if isinstance(row, Mapping)] if listed else []
