"""What the dashboard shows, as one JSON value: gathered from a log, and from what others found.

source, made, span, window_seconds
series, failures, losses     as `latency.Summary.to_json`; each series with its `promise`
shadow                       how far each bundle is from its original
ab, cost                     as `ab.Trial.to_json` and `cost.Ledger.to_json`
drift, accuracy, triage      as `fettle.monitor.drift` tells them; None where nobody asked
alerts                       `firing` and `history`, as `alerts` tells them
findings                     what a person should know, the worst first
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fettle.core.bundle import Manifest
from fettle.monitor._reading import LogFile
from fettle.monitor.ab import Plan, compare
from fettle.monitor.cost import Prices, ledgers
from fettle.monitor.dashboard._health import findings
from fettle.monitor.dashboard._shadow import shadow_bounds
from fettle.monitor.latency import Summary, summarize
from fettle.monitor.promise import compared, promised

Part = Callable[[LogFile], Any]


@dataclass(frozen=True)
class Wanted:
    """What is gathered, besides what every log tells.

    Attributes:
        window: seconds of a window; None for some dozens in all.
        last_s: how far back latency and traffic are told, in seconds; None for the whole log. The
            rest is always of the whole.
        manifest: of the served bundle, whose checklist is the promise.
        plan: of the A/B test.
        prices: of the cost ledger.
        parts: what else is asked of the log, by its name in the state: "drift", say.
        known: what was found before: the same names.
        clock: seconds of the epoch.
    """

    window: float | None = None
    last_s: float | None = None
    manifest: Manifest | None = None
    plan: Plan = field(default_factory=Plan)
    prices: Prices | None = None
    parts: Mapping[str, Part] = field(default_factory=dict)
    known: Mapping[str, Any] = field(default_factory=dict)
    clock: Callable[[], float] = time.time


def gather(
    log: LogFile, wanted: Wanted | None = None, summary: Summary | None = None
) -> dict[str, Any]:
    """Return what the dashboard shows.

    Args:
        log: of any length.
        wanted: what is asked of it.
        summary: where it was made before.

    Raises:
        InputError: windows too short for the log.
        DataError: the log is damaged.
    """
    asked = wanted or Wanted()
    now, span = asked.clock(), log.span
    since = None if asked.last_s is None else now - asked.last_s
    told = summary or _summary(log, asked, since)
    state: dict[str, Any] = {
        "source": log.path.name,
        "made": now,
        "since": since,
        "span": span and [end / 1e9 for end in span],
        **told.to_json(),
        "shadow": shadow_bounds(log, told.seconds, since or 0.0),
        "ab": [trial.to_json() for trial in compare(log, asked.plan)],
        "cost": [ledger.to_json() for ledger in ledgers(log, asked.prices)],
        "drift": None,
        "accuracy": None,
        "triage": None,
        "alerts": None,
    }
    _promise(state, told, asked.manifest)
    state |= {name: part(log) for name, part in asked.parts.items()}
    state |= asked.known
    state["findings"] = findings(state)
    return state


def _summary(log: LogFile, wanted: Wanted, since: float | None) -> Summary:
    if wanted.last_s is None or since is None:
        return summarize(log, wanted.window)
    return summarize(log, wanted.window or wanted.last_s / _MANY, round(since * 1e9))


def renewed(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state with its findings looked for again, after a part of it has changed."""
    return {**state, "findings": findings(state)}


_MANY = 60  # windows, where it is told how far back they reach
_OTHERS = ("shadow", "b", "canary")  # routes to bundles that promised something else


def _promise(state: dict[str, Any], summary: Summary, manifest: Manifest | None) -> None:
    """Hold each series against what the checklist measured."""
    promises = promised(manifest) if manifest else {}
    for series, who in zip(state["series"], sorted(summary.cells), strict=True):
        if "promise" not in series:
            known = {} if who.route in _OTHERS else promises
            series["promise"] = compared(summary.overall(who), known)
