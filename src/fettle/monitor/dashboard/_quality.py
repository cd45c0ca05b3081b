"""The sections on what answers are worth: A/B, the bound by the shadow, accuracy, and cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fettle.monitor.dashboard import _format as form
from fettle.monitor.dashboard._axes import Scale
from fettle.monitor.dashboard._chart import Chart, Line, Series, Told, Value, charts
from fettle.monitor.dashboard._requests import Row, when

State = Mapping[str, Any]
_GUARDS = {"failed": "more requests failed", "slow": "more answers were slow"}
_MEASURES = {"accuracy": "right answers", "answered": "answered requests"}
_TINY = 0.001
_SIDES = (
    ("original", "the original", "as the shadow"),
    ("served", "what is served", ""),
    ("saved", "saved", ""),
    ("shadow", "the shadow's share", "which comes off that"),
    ("net", "net", ""),
)
_TRENDS = {
    "fades": "The effect fades over time: it may be of the new alone.",
    "grows": "The effect grows over time.",
    "steady": "The effect is steady over time.",
    "unknown": "Too few windows to tell whether the effect changes over time.",
}


@dataclass(frozen=True)
class Span:
    """An interval on an axis from −1 to 1 of 100 units, in percent of its breadth."""

    value: float
    low: float
    high: float
    zero: float
    allowed: tuple[float, float]
    ends: tuple[str, str]


@dataclass(frozen=True)
class Trial:
    """One A/B test, as the page shows it."""

    title: str
    level: str
    advice: str
    verdict: str
    effect: str
    bounds: str
    span: Span
    charts: Sequence[Chart]
    facts: Sequence[tuple[str, str]]
    guards: Sequence[Row]
    trend: str


@dataclass(frozen=True)
class Column:
    """One unit of the ledger, and by how much more than a thousand predictions it is shown."""

    name: str
    sides: Mapping[str, Any]
    times: int

    def cell(self, side: str) -> tuple[str, str]:
        """Return an amount with its interval."""
        found = self.sides[side]
        scaled = {key: None if v is None else self.times * v for key, v in found.items()}
        return form.significant(scaled["value"]), form.bounds(scaled)


@dataclass(frozen=True)
class Known:
    """What is known of accuracy: in sentences, and over time."""

    rows: Sequence[Mapping[str, Any]]
    charts: Sequence[Chart]


def accuracy(state: State) -> Known:
    """Return what labels say of accuracy, and what confidence foretells."""
    found = state["accuracy"]
    if not found:
        return Known((), ())
    labelled = f"by {form.count(found['labelled'])} labels"
    assumed = "This assumes: " + "; ".join(found["assumptions"]) + "."
    ways = (
        ("by_labels", labelled, "The interval holds at every moment."),
        ("by_confidence", f"foretold by confidence, by {found['calibrated_on']}", assumed),
    )
    rows = [{**found[key], "how": how, "note": note} for key, how, note in ways if found[key]]
    windows = found["windows"]
    lines = [
        _of_columns(name, kind, _columns([window[key] for window in windows]))
        for name, kind, key in (("labels", "one", "by_labels"), ("conf.", "two", "by_confidence"))
        if any(window[key] for window in windows)
    ]
    if not lines:
        return Known(rows, ())
    width = windows[1]["start"] - windows[0]["start"] if len(windows) > 1 else 1.0
    told = [Told(when(w["start"], width), tuple(_known(w))) for w in windows]
    starts = [w["start"] for w in windows]
    drawn = Series(starts, width, lines, told, lambda v: form.percent(v, 0), zero=False)
    return Known(rows, charts(drawn))


def _columns(found: Sequence[Mapping[str, Any] | None]) -> tuple[list[Value], ...]:
    """Return estimates, lower and upper ends; None where there are none."""

    def of(key: str) -> list[Value]:
        return [each[key] if each else None for each in found]

    return of("estimate"), of("low"), of("high")


def _of_columns(name: str, kind: str, columns: tuple[list[Value], ...]) -> Line:
    estimates, low, high = columns
    return Line(name, kind, estimates, low, high)


def _known(window: Mapping[str, Any]) -> list[str]:
    told = [
        f"{form.percent(window[key]['estimate'])} {form.bounds(window[key], form.percent)} {name}"
        for key, name in (("by_labels", "by labels"), ("by_confidence", "by confidence"))
        if window[key]
    ]
    return [*told, f"{form.count(window['n'])} answers"]


def trials(state: State) -> list[Trial]:
    """Return the A/B tests."""
    return [_trial(trial, state["window_seconds"]) for trial in state["ab"]]


def shadows(state: State) -> list[tuple[Mapping[str, Any], Sequence[Chart]]]:
    """Return each bundle's disagreement with its original, and its drawing over time."""
    return [(row, charts(_bound(row, state["window_seconds"]))) for row in state["shadow"]]


def cost_columns(ledger: Mapping[str, Any]) -> list[Column]:
    """Return what a thousand predictions cost, in each unit that is known; tiny sums by million."""
    found = []
    for key, unit in (("seconds", "core seconds"), ("money", ""), ("energy_joules", "joules"),
                      ("co2_grams", "g CO₂")):  # fmt: skip
        sides = ledger.get(key)
        if sides:
            times = 1000 if sides["original"]["value"] < _TINY else 1
            name = unit or sides["currency"] or "money"
            found.append(Column(name + (", a million" if times > 1 else ""), sides, times))
    return found


def cost_rows(ledger: Mapping[str, Any]) -> list[Row]:
    """Return the lines of the ledger: both sides, and what is left."""
    columns = cost_columns(ledger)
    return [
        Row(name, detail, [column.cell(side) for column in columns])
        for side, name, detail in _SIDES
        if columns
    ]


def _trial(trial: Mapping[str, Any], width: float) -> Trial:
    a, b = trial["arms"]
    effect, needed = trial["effect"], trial["needed"]
    level = {"Take B": "good", "Go on": "open"}.get(trial["advice"].partition(":")[0], "bad")
    facts = [
        (f"{name}, {_MEASURES[trial['measure']]}",
         f"{form.percent(trial[side]['estimate'])} of {form.count(trial[side]['n'])}")
        for side, name in (("a", a), ("b", b))
    ]  # fmt: skip
    undecided = trial["verdict"] in ("open", "not worse")
    if undecided and needed["margin"]:
        facts.append(
            ("still needed, to settle the margin", f"{form.count(needed['margin'])} callers")
        )
    if undecided and needed["difference"]:
        facts.append(
            ("still needed, to tell them apart", f"{form.count(needed['difference'])} callers")
        )
    if trial["crossed"]:
        at = form.moment(trial["crossed"]["time"], "%m-%d %H:%M")
        facts.append(("told apart since", f"{at}, {form.count(trial['crossed']['n'])} callers"))
    facts.append(("sizes of the arms", _sizes(trial["sizes"])))
    return Trial(
        title=f"{trial['model']}: {b} against {a}",
        level=level,
        advice=trial["advice"],
        verdict=trial["verdict"],
        effect=form.points(effect["estimate"]),
        bounds=form.bounds(effect, form.points),
        span=_span(effect, trial["margin"]),
        charts=charts(_effects(trial, width)),
        facts=facts,
        guards=[_guard(name, found) for name, found in trial["guardrails"].items()],
        trend=_TRENDS[trial["novelty"]["trend"]],
    )


def _span(effect: Mapping[str, Any], margin: float) -> Span:
    ends = (effect["low"], effect["high"], -2 * margin, 2 * margin)
    low, high = max(-1.0, min(ends)), min(1.0, max(ends))
    across = Scale(low, high, 2, 98)
    value = effect["estimate"] if effect["estimate"] is not None else 0.0
    return Span(
        value=across(value),
        low=across(effect["low"]),
        high=across(effect["high"]),
        zero=across(0),
        allowed=(across(-margin), across(high)),
        ends=(form.points(low), form.points(high)),
    )


def _effects(trial: Mapping[str, Any], width: float) -> Series:
    found = [step for step in trial["steps"] if step["estimate"] is not None]
    told = [
        Told(when(step["start"], width),
             (f"{form.points(step['estimate'])} {form.bounds(step, form.points)}",
              f"after {form.count(step['n'])} callers"))
        for step in found
    ]  # fmt: skip
    # the first intervals are as wide as can be, and would flatten all the others
    settled = [max(abs(step["low"]), abs(step["high"])) for step in found[len(found) // 4 :]]
    most = max([*settled, 2 * trial["margin"]])
    clipped = [
        {key: max(-most, min(most, step[key])) for key in ("estimate", "low", "high")}
        for step in found
    ]
    return Series(
        starts=[step["start"] for step in found],
        width=width,
        lines=[_line(clipped)],
        told=told,
        form=lambda value: f"{form.significant(100 * value, 1)}{form.NB}pp",
        zero=False,
        marks=[(0.0, "equal"), (-trial["margin"], "margin")],
    )


def _sizes(sizes: Mapping[str, Any] | None) -> str:
    if sizes is None:
        return "unchecked: give the share that B was to get"
    told = f"B has {form.percent(sizes['estimate'])}, {form.percent(sizes['expected'])} was set"
    return f"{told}: a mismatch" if sizes["mismatch"] else f"{told}: as they should be"


def _guard(name: str, found: Mapping[str, Any]) -> Row:
    words = {"above": "broken", "below": "kept", "open": "not known yet"}
    limit = f"over {form.milliseconds(found['limit_ms'])}" if found.get("limit_ms") else ""
    cells = [
        (form.points(found["estimate"]), form.bounds(found, form.points)),
        (form.points(found["limit"]), ""),
        (words[found["side"]], ""),
    ]
    return Row(_GUARDS[name], limit, cells)


def _bound(row: Mapping[str, Any], width: float) -> Series:
    windows = row["windows"]
    told = [
        Told(when(w["start"], width),
             (f"{form.percent(w['value'])} differ {form.bounds(w, form.percent)}",
              f"of {form.count(w['n'])}"))
        for w in windows
    ]  # fmt: skip
    return Series(
        [w["start"] for w in windows], width, [_line(windows)], told, lambda v: form.percent(v, 0)
    )


def _line(found: Sequence[Mapping[str, Any]]) -> Line:
    """Return estimates with their bounds as a line."""
    value = "estimate" if found and "estimate" in found[0] else "value"
    estimates, low, high = ([each[key] for each in found] for key in (value, "low", "high"))
    return Line("", "one", estimates, low, high)
