"""What rules look at: one number of one model and route, at the end of one window."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

LABELS = ("model", "version", "sha", "route")
_QUANTILES = ("p50", "p95", "p99")
_SERIES = {
    "requests_per_second": "requests a second; 0 in windows without any",
    "failed": "share of requests that failed, 0 to 1",
    "saturated": "share that found no room in the queue or came too late",
    "waiting": "share of an answer's time that it waited",
    "p50_ms": "half of the answers came within",
    "p95_ms": "19 of 20 answers came within",
    "p99_ms": "99 of 100 answers came within; of windows of 1,000 answers or more",
    "compute_p50_ms": "half of the answers were computed within",
    "compute_p95_ms": "19 of 20",
    "compute_p99_ms": "99 of 100",
}
_WHOLE = {
    "disagreement": "share of answers that differ from the shadow's, in the window",
    "accuracy_loss_bound": "what accuracy is lower by at most, by the shadow, of the whole log",
    "drifted_features": "features past the threshold of their detector, in the window",
    "ab_effect_high": "the most that B can be better by, of the whole log",
    "ab_mismatch": "1 where the arms of an A/B test are not as large as was set",
    "cost_ratio": "how many times cheaper than the original, of the whole log",
}
MEASURES = {**_SERIES, **_WHOLE}


class Reading(NamedTuple):
    """One number: of what, whose, how much."""

    measure: str
    labels: Mapping[str, str]
    value: float


def over_time(state: Mapping[str, Any]) -> Iterator[tuple[float, list[Reading]]]:
    """Yield each moment at which a window ended, in seconds of the epoch, and what could be read.

    What is of the whole log is read at the last moment. Of a log that is being written (`since` is
    told), windows without any request count until now: silence can be a reason for an alert.
    """
    width = state["window_seconds"]
    windows: dict[float, list[Reading]] = {}
    for start, reading in (*_series(state), *_shadow(state), *_drift(state)):
        windows.setdefault(start, []).append(reading)
    moments = sorted(windows)
    for start in moments:
        found = windows[start]
        yield start + width, [*found, *_whole(state)] if start == moments[-1] else found


def _series(state: Mapping[str, Any]) -> Iterator[tuple[float, Reading]]:
    starts = {w["start"] for series in state["series"] for w in series["windows"]}
    if starts and state.get("since") is not None:
        width, last = state["window_seconds"], max(starts)
        starts |= {last + at * width for at in range(1, int((state["made"] - last) / width))}
    moments = sorted(starts)
    for series in state["series"]:
        labels = {name: series[name] for name in LABELS}
        by_start = {window["start"]: window for window in series["windows"]}
        for start in moments:
            window = by_start.get(start)
            if window is None:
                yield start, Reading("requests_per_second", labels, 0.0)
                continue
            for name, value in _of_window(window):
                if value is not None:
                    yield start, Reading(name, labels, float(value))


def _of_window(window: Mapping[str, Any]) -> Iterator[tuple[str, float | None]]:
    yield "requests_per_second", window["rate"]
    yield "waiting", window["waiting"]
    for name in ("failed", "saturated"):
        yield name, window[name] and window[name]["value"]
    for prefix, which in (("", "latency_ms"), ("compute_", "compute_ms")):
        for quantile in _QUANTILES:
            found = window[which][quantile]
            yield f"{prefix}{quantile}_ms", found and found["value"]


def _shadow(state: Mapping[str, Any]) -> Iterator[tuple[float, Reading]]:
    for row in state.get("shadow") or ():
        labels = {"model": row["model"], "sha": row["answered"]}
        for window in row["windows"]:
            yield window["start"], Reading("disagreement", labels, window["value"])


def _drift(state: Mapping[str, Any]) -> Iterator[tuple[float, Reading]]:
    counts: dict[float, int] = {}
    for feature in (state.get("drift") or {}).get("features", ()):
        for window in feature["windows"]:
            counts[window["start"]] = counts.get(window["start"], 0) + bool(window.get("alarm"))
    for start, count in counts.items():
        yield start, Reading("drifted_features", {}, float(count))


def _whole(state: Mapping[str, Any]) -> Iterator[Reading]:
    for row in state.get("shadow") or ():
        if row["accuracy_loss_at_most"] is not None:
            labels = {"model": row["model"], "sha": row["answered"]}
            yield Reading("accuracy_loss_bound", labels, row["accuracy_loss_at_most"])
    for trial in state.get("ab") or ():
        labels = {"model": trial["model"]}
        yield Reading("ab_effect_high", labels, trial["effect"]["high"])
        if trial["sizes"] is not None:
            yield Reading("ab_mismatch", labels, float(trial["sizes"]["mismatch"]))
    for ledger in state.get("cost") or ():
        if "ratio" in ledger:
            labels = {"model": ledger["model"], "sha": ledger["answered"]}
            yield Reading("cost_ratio", labels, ledger["ratio"]["value"])
