"""The verdict in words and numbers: one plain sentence, the drop, the speed-ups, the size."""

from __future__ import annotations

from dataclasses import dataclass

from fettle.report import _format as form
from fettle.report._record import Interval, Record, Trial

WORDS = {"pass": "Pass", "fail": "Fail", "inconclusive": "Inconclusive"}
AGAINST = {
    "vs_same_runtime_fp32": "FP32 on the same runtime",
    "vs_best_fp32": "the fastest FP32 runtime",
    "vs_torch_eager": "PyTorch eager",
}


@dataclass(frozen=True)
class Speedup:
    """How many times as fast, and as what."""

    against: str
    ratio: Interval


@dataclass(frozen=True)
class VerdictInfo:
    """What the first section of the report shows."""

    outcome: str
    word: str
    sentence: str
    detail: str
    drop: Interval | None
    test: str
    speedups: tuple[Speedup, ...]
    size_ratio: float | None
    size: float | None
    baseline_size: float | None


def verdict_info(record: Record) -> VerdictInfo:
    """Return what the verdict says of the best artifact, or that there is none."""
    best = record.best
    outcome = record.outcome if record.outcome in WORDS else "inconclusive"
    size, before = _size(best), _size(record.baseline)
    return VerdictInfo(
        outcome=outcome,
        word=WORDS[outcome],
        sentence=_sentence(record, outcome),
        detail=record.text,
        drop=best.drop if best else None,
        test=best.test if best else "",
        speedups=_speedups(best),
        size_ratio=ratio(size, before),
        size=size,
        baseline_size=before,
    )


def ratio(value: float | None, whole: float | None) -> float | None:
    """Return value / whole, or None when either is missing or the whole is nothing."""
    return value / whole if value is not None and whole else None


def _size(trial: Trial | None) -> float | None:
    return trial.size_bytes if trial else None


def _speedups(best: Trial | None) -> tuple[Speedup, ...]:
    found = best.speedup if best else {}
    return tuple(Speedup(text, found[key]) for key, text in AGAINST.items() if key in found)


def _sentence(record: Record, outcome: str) -> str:
    best, allowed = record.best, form.budget(record.max_drop)
    if best is None:
        return f"No artifact was proven to lose at most {allowed} of {record.metric}."
    if best.drop is None:
        return f"{best.title} was chosen, but no drop of {record.metric} was measured for it."
    ending = {"pass": _passed, "fail": _failed, "inconclusive": _open}[outcome]
    name = best.title[:1].upper() + best.title[1:]
    return f"{name} {ending(record, best.drop, allowed)}"


def _passed(record: Record, drop: Interval, allowed: str) -> str:
    return (
        f"loses at most {form.points(max(drop.high, 0))} of {record.metric} with"
        f" {_sure(record)} confidence; {allowed} were allowed.{_as_noise(record, drop)}"
    )


def _as_noise(record: Record, drop: Interval) -> str:
    """Return what a loss of fidelity is as a signal-to-noise ratio; of the original, it is all."""
    if record.metric != "fidelity" or drop.high <= 0:
        return ""
    return f" So the signal-to-noise ratio is at least {form.decibels(drop.high)}."


def _failed(record: Record, drop: Interval, allowed: str) -> str:
    return (
        f"loses at least {form.points(drop.low)} of {record.metric} with {_sure(record)}"
        f" confidence; only {allowed} were allowed."
    )


def _open(record: Record, drop: Interval, allowed: str) -> str:
    settle = f" About {record.needed:,} examples would settle it." if record.needed else ""
    return (
        f"may lose between {form.points(drop.low)} and {form.points(drop.high)} of {record.metric};"
        f" {allowed} were allowed, so the test can't tell.{settle}"
    )


def _sure(record: Record) -> str:
    return f"{100 * record.confidence:.4g}{form.NB}%"
