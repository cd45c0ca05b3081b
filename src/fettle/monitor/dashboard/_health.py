"""What a person should know first: findings, the worst on top, each with what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fettle.monitor.dashboard import _format as form
from fettle.monitor.latency import SATURATED, share

LEVELS = ("bad", "warn", "note")
_FAILING = 0.01  # of the requests of late
_LATELY = 2  # windows
_SATURATED = 0.01
_WAITING = 0.5  # of an answer's time
_FEW = 30  # requests: no more is known of fewer

State = Mapping[str, Any]
Finding = dict[str, str]


def findings(state: State) -> list[Finding]:
    """Return what is out of the ordinary: `level`, `text`, `action`, and the section `where`."""
    found = [
        finding
        for look in (_alerts, _triage, _requests, _promise, _shadow, _ab, _drift, _losses)
        for finding in look(state)
    ]
    return sorted(found, key=lambda finding: LEVELS.index(finding["level"]))


def headline(state: State) -> Finding:
    """Return the one line at the top of the page."""
    n = sum(series["all"]["n"] for series in state["series"] if series["route"] != "shadow")
    if not n and state["span"] and state.get("since"):
        silent = form.length(state["made"] - state["since"])
        return _finding("none", f"No requests in the last {silent}", "", "traffic")
    if not n:
        return _finding("none", "No predictions yet", "", "traffic")
    seen = [finding for finding in state["findings"] if finding["level"] != "note"]
    if not seen:
        first, last = state["span"]
        during = form.length(max(last - max(first, state.get("since") or first), 1.0))
        return _finding("good", f"Healthy: {form.count(n)} requests in {during}", "", "traffic")
    return dict(seen[0])


def lately(series: Mapping[str, Any]) -> dict[str, Any]:
    """Return the requests of a series' last windows together: n, failed and saturated shares."""
    windows = series["windows"][-_LATELY:]
    n = sum(window["n"] for window in windows)
    failed = sum(sum(window["errors"].values()) for window in windows)
    full = sum(window["errors"].get(name, 0) for window in windows for name in SATURATED)
    return {"n": n, "failed": share(failed, n), "saturated": share(full, n)}


def name_of(series: Mapping[str, Any]) -> str:
    """Return what a series is called: its model, and its route where that tells something."""
    model = series["model"] or "predictions"
    return model if series["route"] in ("only", "") else f"{model}, {series['route']}"


def _alerts(state: State) -> Iterator[Finding]:
    for alert in (state.get("alerts") or {}).get("firing", ()):
        level = "bad" if alert.get("severity") in ("page", "critical") else "warn"
        yield _finding(level, alert["summary"], "", "alerts")


def _triage(state: State) -> Iterator[Finding]:
    triage = state.get("triage")
    if not triage or triage.get("action") in (None, "nothing"):
        return
    level = "bad" if triage["action"] in ("roll back", "rollback") else "warn"
    text = str(triage.get("reason") or triage.get("cause") or "Drift").rstrip(".")
    yield _finding(level, text[:1].upper() + text[1:], f"{triage['action']}", "drift")


def _requests(state: State) -> Iterator[Finding]:
    for series in state["series"]:
        if series["route"] == "shadow":
            continue
        late, name = lately(series), name_of(series)
        if late["n"] < _FEW:
            continue
        if late["failed"]["low"] > _FAILING:
            share_of = form.percent(late["failed"]["value"])
            what = _most(series)
            yield _finding("bad", f"{name}: {share_of} of requests fail{what}", "", "traffic")
        if late["saturated"]["low"] > _SATURATED:
            text = f"{name}: the queue is full, {form.percent(late['saturated']['value'])} refused"
            yield _finding("bad", text, "add workers, or send less", "traffic")
        elif (series["windows"][-1]["waiting"] or 0) > _WAITING:
            text = f"{name}: answers wait longer than they are computed"
            yield _finding("warn", text, "", "latency")


def _most(series: Mapping[str, Any]) -> str:
    errors = series["windows"][-1]["errors"] or series["all"]["errors"]
    return f", mostly {next(iter(errors))}" if errors else ""


def _promise(state: State) -> Iterator[Finding]:
    for series in state["series"]:
        promise = series.get("promise")
        if promise and promise["slower"] and series["route"] != "shadow":
            worst = promise["slower"][-1]
            times = f"{promise['ratio'][worst]:.1f}×"
            text = f"{name_of(series)}: {worst} of computing is {times} what was proven"
            action = "look for other work on this machine; else prove it anew: fettle check"
            yield _finding("warn", text, action, "latency")


def _shadow(state: State) -> Iterator[Finding]:
    budget = (state.get("budget") or {}).get("max_drop")
    for row in state.get("shadow") or ():
        low = row["disagreement"]["low"]
        if budget is not None and low > budget:
            text = f"{row['model']} differs from its original in more than {form.percent(low)}"
            yield _finding("bad", text, "roll back, or recalibrate", "shadow")


def _ab(state: State) -> Iterator[Finding]:
    for trial in state.get("ab") or ():
        first = trial["advice"].partition(":")[0]
        level = {"Don't trust it": "bad", "Stop B": "bad", "Go on": "note"}.get(first, "warn")
        if first.startswith("Take B"):
            level = "note"
        yield _finding(level, f"A/B of {trial['model']}. {trial['advice'].rstrip('.')}", "", "ab")


def _drift(state: State) -> Iterator[Finding]:
    drift = state.get("drift") or {}
    if drift.get("drifted") and not (state.get("triage") or {}).get("action"):
        yield _finding("warn", "Inputs or answers have drifted from the reference", "", "drift")


def _losses(state: State) -> Iterator[Finding]:
    lost = state.get("losses") or {}
    if sum(lost.values()):
        kinds = ", ".join(f"{form.count(count)} {kind}" for kind, count in lost.items())
        yield _finding("note", f"Not in the log: {kinds}", "", "traffic")


def _finding(level: str, text: str, action: str, where: str) -> Finding:
    return {"level": level, "text": text, "action": action, "where": where}
