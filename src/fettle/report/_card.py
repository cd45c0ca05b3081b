"""The model card: what the artifact is, how good, how fast, and where that holds, in markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable

from fettle.report import _format as form
from fettle.report._record import Interval, Record, Trial, text
from fettle.report._tables import machine_rows
from fettle.report._verdict import AGAINST, ratio, verdict_info

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#+!|~&])")
_OF_THE_ORIGINAL = ("agreement", "fidelity")


def model_card(record: Record) -> str:
    """Return the card of the best artifact; where none was found it says so."""
    info, best = verdict_info(record), record.best
    parts = [
        f"# {_safe(record.model or 'model')}: {_safe(best.title if best else 'no artifact')}",
        f"**{info.word}.** {_safe(info.sentence)}",
        *([_safe(info.detail)] if info.detail else []),
        _part("What it is", _identity(record, best)),
    ]
    if best:
        parts += [
            _part("Quality", _quality(record, best)),
            _part("Latency", _latency(best)),
            _part("Size", _size(record, best)),
        ]
    parts += [
        _part("Lineage", _lineage(record)),
        _part("Machine of the proof", [(n, _safe(v)) for n, v in machine_rows(record)]),
        "## Limits\n\n" + "\n".join(f"- {limit}" for limit in _limits(record, best)),
    ]
    return form.plain("\n\n".join(parts)) + "\n"


def _identity(record: Record, best: Trial | None) -> list[tuple[str, str]]:
    rows = [("model", _safe(record.model)), ("data", _safe(record.data))]
    if best:
        rows += [
            ("recipe", _code(best.line)),
            ("runtime", _safe(best.runtime)),
            ("precision", _safe(best.precision)),
        ]
    return rows


def _quality(record: Record, best: Trial) -> list[tuple[str, str]]:
    rows, drop = [], best.drop
    if best.metric:
        split = f"{best.split} split" if best.split else ""
        shown = _shown(form.percent(best.metric.value), form.percent_bounds(best.metric))
        rows.append((_safe(record.metric), _joined([shown, _examples(best.metric), split])))
    if drop:
        shown = _shown(form.points(drop.value), form.points_bounds(drop))
        rows.append(("drop", _joined([shown, _examples(drop), _safe(best.test)])))
    allowed = f"{form.budget(record.max_drop)} at {form.share(record.confidence)} confidence"
    return [*rows, ("budget", allowed)]


def _latency(best: Trial) -> list[tuple[str, str]]:
    latency = best.latency
    names = ("p50", "p90", "p95", "p99", "mean")
    rows = [(name, form.milliseconds(getattr(latency, name))) for name in names]
    rows += [("samples", form.count(latency.n)), ("batch", form.count(latency.batch))]
    rows += [("threads", form.count(latency.threads))]
    for key, against in AGAINST.items():
        if key in best.speedup:
            found = best.speedup[key]
            rows.append(
                (f"over {against}", _shown(form.times(found.value), form.times_bounds(found)))
            )
    return rows


def _size(record: Record, best: Trial) -> list[tuple[str, str]]:
    whole = record.baseline.size_bytes if record.baseline else None
    return [
        ("file", form.size(best.size_bytes)),
        ("of the baseline's", form.share(ratio(best.size_bytes, whole))),
        ("multiply-accumulates", form.quantity(best.macs)),
        ("zero weights", form.share(best.sparsity)),
        ("peak memory", form.size(best.peak_memory_bytes)),
    ]


def _lineage(record: Record) -> list[tuple[str, str]]:
    rows = [("made by", _code(record.command)), ("created", _safe(record.created))]
    return rows + [(f"{name} split", _code(hash_)) for name, hash_ in record.fingerprints.items()]


def _limits(record: Record, best: Trial | None) -> Iterable[str]:
    cpu = text(record.machine.get("cpu"))
    where = f"`{_inline(cpu)}`" if cpu else "the processor that it was measured on"
    yield f"Proven on {where} only; run `fettle check` where the artifact is deployed."
    yield "The drop holds for data like the test split; `fettle monitor` watches for drift."
    if record.metric in _OF_THE_ORIGINAL:
        yield "Judged by the original model's answers: where that errs, this isn't seen here."
    if best and best.drop and best.drop.n:
        yield f"The verdict rests on {best.drop.n:,} examples; its bounds are one-sided."
    if best and (best.sparsity or 0) > 0.05:
        yield "Zero weights without a sparse kernel save size, not time."
    if record.warning:
        yield f"When it was measured: {_safe(record.warning)}."
    if best and best.latency.p99 is None:
        yield "Too few samples were taken for a p99."


def _part(title: str, rows: Iterable[tuple[str, str]]) -> str:
    shown = [(name, value) for name, value in rows if value and value != form.DASH]
    lines = [f"| {_safe(name)} | {value} |" for name, value in shown]
    return "\n".join([f"## {title}", "", "| | |", "|---|---|", *lines])


def _shown(value: str, bounds: str) -> str:
    return f"{value} {bounds}".rstrip().replace("[", "\\[")


def _examples(interval: Interval) -> str:
    return f"n = {interval.n:,}" if interval.n else ""


def _joined(parts: Iterable[str]) -> str:
    return ", ".join(part for part in parts if part)


def _safe(value: str) -> str:
    """Return text that markdown and HTML show as it is."""
    return _SPECIAL.sub(r"\\\1", value).replace("\\<", "&lt;").replace("\\>", "&gt;")


def _inline(value: str) -> str:
    return value.replace("`", "'").replace("|", "¦")


def _code(value: str) -> str:
    return f"`{_inline(value)}`" if value else ""
