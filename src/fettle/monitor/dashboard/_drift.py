"""The section on drift: windows × features as strips of heat, and those that moved most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fettle.monitor.dashboard import _format as form

_MOST, _FEW = 12, 5  # strips, and where nothing moved
_STEPS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the threshold; past 1.0 it is an alarm


@dataclass(frozen=True)
class Heat:
    """One window of one feature: how hot, 0 to 5, and what it says."""

    level: int
    alarm: bool
    text: str


@dataclass(frozen=True)
class Strip:
    """One feature over all windows; `peak` is its largest score over the threshold."""

    name: str
    detector: str
    heats: Sequence[Heat]
    peak: float
    alarms: int
    last: str


def heat(score: float | None, threshold: float | None, alarm: bool) -> int:
    """Return a level from 0 to 5; from 3 on it is past the threshold, and never without an alarm.

    Colour alone must not tell more than the detector does: its correction for many features may
    withhold an alarm from a score past the plain threshold.
    """
    if score is None or not threshold:
        return 3 if alarm else 0
    level = sum(score / threshold > step for step in _STEPS)
    return max(3, level) if alarm else min(2, level)


def strips(report: Mapping[str, Any] | None) -> list[Strip]:
    """Return the features that moved most, the first of them first; a few of them."""
    found = [_strip(feature) for feature in (report or {}).get("features", ())]
    found.sort(key=lambda strip: (-strip.alarms, -strip.peak))
    return found[: _MOST if found and found[0].alarms else _FEW]


def _strip(feature: Mapping[str, Any]) -> Strip:
    windows = feature["windows"]
    heats = []
    for window in windows:
        score, threshold = window.get("score"), window.get("threshold")
        alarm = bool(window.get("alarm"))
        words = f"{form.significant(score)}, threshold {form.significant(threshold)}"
        text = f"{form.moment(window['start'], '%m-%d %H:%M')}: {words}{', alarm' if alarm else ''}"
        heats.append(Heat(heat(score, threshold, alarm), alarm, text))
    ratios = [w["score"] / w["threshold"] for w in windows if w.get("score") and w.get("threshold")]
    return Strip(
        name=feature["name"],
        detector=feature.get("detector", ""),
        heats=heats,
        peak=max(ratios, default=0.0),
        alarms=sum(heat.alarm for heat in heats),
        last=heats[-1].text if heats else "",
    )
