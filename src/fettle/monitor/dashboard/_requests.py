"""The sections on requests: latency against the promise, and traffic with its failures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fettle.monitor.dashboard import _format as form
from fettle.monitor.dashboard._chart import Chart, Line, Series, Told, charts
from fettle.monitor.dashboard._health import name_of

_QUANTILES = ("p50", "p95", "p99")
_KINDS = {"p50": "one", "p95": "two", "p99": "three"}
_ANSWERED = "answered"
_MOST = 4  # models and routes that are drawn
State = Mapping[str, Any]


@dataclass(frozen=True)
class Picture:
    """A drawing with its title, and what it means in a sentence."""

    title: str
    text: str
    charts: Sequence[Chart]


@dataclass(frozen=True)
class Row:
    """A line of the table: who, and the cells, each a text with a quieter one below."""

    name: str
    detail: str
    cells: Sequence[tuple[str, str]]


def answering(state: State) -> list[Mapping[str, Any]]:
    """Return the series that answered callers, those with most requests first."""
    shown = [series for series in state["series"] if series["route"] != "shadow"]
    return sorted(shown, key=lambda series: -series["all"]["n"])


def latency(state: State) -> list[Picture]:
    """Return the drawings of how long answers took, and of computing where it was promised."""
    pictures, width = [], state["window_seconds"]
    for series in answering(state)[:_MOST]:
        if not series["all"]["latency_ms"]["n"]:
            continue
        text = "Half of the answers came within p50; 1 in 100 took longer than p99."
        drawn = charts(_times(series, width, "latency_ms", {}))
        pictures.append(Picture(f"First byte to answer: {name_of(series)}", text, drawn))
        promise = series.get("promise")
        if promise:
            text = f"Dashed: what the checklist measured, with batches of {promise['batch']}."
            drawn = charts(_times(series, width, "compute_ms", promise["promised"]))
            pictures.append(Picture(f"Computing: {name_of(series)}", text, drawn))
    return pictures


def latency_rows(state: State) -> list[Row]:
    """Return p50, p95, p99, how long answers waited, and what was promised, of every series."""
    rows = []
    for series in state["series"]:
        whole = series["all"]
        cells = [_quantile(whole["latency_ms"], q) for q in _QUANTILES]
        cells.append((form.percent(whole["waiting"], 0), ""))
        cells.append(_kept(series.get("promise")))
        rows.append(Row(name_of(series), _detail(series), cells))
    return rows


def traffic(state: State) -> list[Picture]:
    """Return the drawing of requests a second, of all models and routes together."""
    together: dict[float, Counter[str]] = {}
    for series in answering(state):
        for window in series["windows"]:
            errors = Counter(window["errors"])
            errors[_ANSWERED] = window["n"] - errors.total()
            together.setdefault(window["start"], Counter()).update(errors)
    if not together:
        return []
    width, starts = state["window_seconds"], sorted(together)
    answered = [together[start][_ANSWERED] / width for start in starts]
    failed = [
        together[start].total() / width - n for start, n in zip(starts, answered, strict=True)
    ]
    drawn = Series(
        starts=starts,
        width=width,
        lines=[Line("answered", "one", answered), Line("failed", "bad", failed)],
        told=[_requests(start, together[start], width) for start in starts],
        form=lambda value: form.significant(value, 2) if value else "0",
        bars=True,
    )
    text = f"In windows of {form.length(width)}."
    return [Picture("Requests a second", text, charts(drawn))]


def traffic_rows(state: State) -> list[Row]:
    """Return how many requests there were of every series, and how many failed or found no room."""
    rows = []
    for series in state["series"]:
        whole = series["all"]
        cells = [
            (form.count(whole["n"]), ""),
            _share(whole["failed"]),
            _share(whole["saturated"]),
            (form.significant(whole["batch"], 2) if whole["batch"] else form.DASH, ""),
        ]
        rows.append(Row(name_of(series), _detail(series), cells))
    return rows


def _times(
    series: Mapping[str, Any], width: float, which: str, promised: Mapping[str, float]
) -> Series:
    windows = series["windows"]
    lines = []
    for name in _QUANTILES:
        found = [window[which][name] for window in windows]
        if any(found):
            values = [each and each["value"] for each in found]
            lines.append(Line(name, _KINDS[name], values, reference=promised.get(name)))
    return Series(
        starts=[window["start"] for window in windows],
        width=width,
        lines=lines,
        told=[_taken(window, which, width) for window in windows],
        form=form.milliseconds,
        log=True,
    )


def _taken(window: Mapping[str, Any], which: str, width: float) -> Told:
    found = [(q, window[which][q]) for q in _QUANTILES]
    lines = [
        f"{q} {form.milliseconds(each['value'])} {form.bounds(each)}".rstrip()
        for q, each in found
        if each
    ]
    return Told(when(window["start"], width), (*lines, f"{form.count(window[which]['n'])} answers"))


def _requests(start: float, counts: Counter[str], width: float) -> Told:
    n = counts.total()
    errors = [f"{form.count(m)} {name}" for name, m in counts.most_common() if m]
    told = (f"{form.count(n)} requests, {form.rate(n / width)}", *errors)
    return Told(when(start, width), told)


def when(start: float, width: float) -> str:
    """Return a window's beginning, and its length."""
    return f"{form.moment(start, '%m-%d %H:%M:%S')}, {form.length(width)}"


def _quantile(found: Mapping[str, Any], name: str) -> tuple[str, str]:
    each = found[name]
    if each is None:
        return form.DASH, "needs 1,000" if name == "p99" and found["n"] else ""
    return form.milliseconds(each["value"]), form.bounds(each)


def _share(found: Mapping[str, Any] | None) -> tuple[str, str]:
    if found is None:
        return form.DASH, ""
    return form.percent(found["value"]), form.bounds(found, form.percent)


def _kept(promise: Mapping[str, Any] | None) -> tuple[str, str]:
    if not promise or not promise["ratio"]:
        return form.DASH, ""
    ratios = ", ".join(f"{q} {ratio:.2f}×" for q, ratio in promise["ratio"].items())
    return ("slower" if promise["slower"] else "kept", ratios)


def _detail(series: Mapping[str, Any]) -> str:
    parts = [f"version {series['version']}" if series["version"] else "", series["sha"][:8]]
    return ", ".join(part for part in parts if part)
