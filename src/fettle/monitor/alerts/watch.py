"""Alerts: rules held against readings, with a wait before each begins and before it is over.

    quiet ──past the limit──► pending ──for so long──► firing ──clear for so long──► quiet
                 ▲                │                       │
                 └──not any more──┘                       └── between `clear` and the limit it stays

Where nothing at all is read, nothing changes: no alert is over because the server went silent. An
alert of something that isn't read any more while other things are, a bundle that was rolled back
say, is over after a quarter of an hour.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fettle.monitor.alerts.readings import Reading
from fettle.monitor.alerts.rules import Rule

_GONE_S = 900.0
Key = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True)
class Alert:
    """One alert; it is firing while `ended` is None.

    Attributes:
        name: of its rule.
        labels: whose it is.
        severity: of its rule.
        summary: in words.
        value: that was read when it began, or ended.
        started, ended: in seconds of the epoch.
    """

    name: str
    labels: Mapping[str, str]
    severity: str
    summary: str
    value: float
    started: float
    ended: float | None = None

    @property
    def key(self) -> Key:
        """What makes it one alert and no other."""
        return self.name, tuple(sorted(self.labels.items()))

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {**vars(self), "labels": dict(self.labels)}


@dataclass
class _Course:
    """How one rule does on one model and route."""

    pending: float | None = None
    clear: float | None = None
    firing: Alert | None = None
    read: float | None = None


@dataclass
class Watch:
    """Holds rules against what is read, moment by moment.

    Args:
        rules: of alerts.
        firing: alerts that were on when the last one stopped watching.
    """

    rules: tuple[Rule, ...]
    firing: Iterable[Alert] = ()
    _courses: dict[Key, _Course] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._courses |= {alert.key: _Course(firing=alert) for alert in self.firing}
        self.firing = ()

    @property
    def active(self) -> list[Alert]:
        """The alerts that are firing, the oldest first."""
        found = [course.firing for course in self._courses.values() if course.firing]
        return sorted(found, key=lambda alert: alert.started)

    def look(self, now: float, readings: Iterable[Reading]) -> list[Alert]:
        """Take what is read at one moment; return alerts that begin or are over.

        Args:
            now: in seconds of the epoch; never before the last one.
            readings: at that moment.
        """
        changes = []
        for reading in readings:
            for rule in self.rules:
                if rule.measure == reading.measure and rule.concerns(reading.labels):
                    changed = self._step(rule, reading, now)
                    if changed:
                        changes.append(changed)
        return changes + self._gone(now)

    def _step(self, rule: Rule, reading: Reading, now: float) -> Alert | None:
        alert = _alert(rule, reading, now)
        course = self._courses.setdefault(alert.key, _Course())
        course.read = now
        if course.firing is not None:
            return self._ending(rule, course, reading, now)
        if not rule.breached(reading.value):
            course.pending = None
            return None
        course.pending = now if course.pending is None else course.pending
        if now - course.pending < rule.wait_s:
            return None
        course.pending, course.clear, course.firing = None, None, alert
        return alert

    def _ending(self, rule: Rule, course: _Course, reading: Reading, now: float) -> Alert | None:
        if not rule.cleared(reading.value):
            course.clear = None
            return None
        course.clear = now if course.clear is None else course.clear
        if now - course.clear < rule.clear_s:
            return None
        assert course.firing is not None
        ended = replace(course.firing, ended=now, value=reading.value)
        course.clear, course.firing = None, None
        return ended

    def _gone(self, now: float) -> list[Alert]:
        """End alerts of what isn't read any more."""
        ended = []
        for course in self._courses.values():
            course.read = now if course.read is None else course.read
            if course.firing is not None and now - course.read >= _GONE_S:
                ended.append(replace(course.firing, ended=now))
                course.firing = None
        return ended


def _alert(rule: Rule, reading: Reading, now: float) -> Alert:
    labels = {name: value for name, value in reading.labels.items() if value}
    return Alert(
        rule.name, labels, rule.severity, _summary(rule, labels, reading.value), reading.value, now
    )


def _summary(rule: Rule, labels: Mapping[str, str], value: float) -> str:
    text = rule.summary
    if not text:
        whose = f" of {labels['model']}" if "model" in labels else ""
        side = "above" if rule.above else "below"
        text = f"{rule.measure}{whose} is {{value}}, {side} {rule.limit:g}"
    for name, told in {**labels, "value": f"{value:.4g}"}.items():
        text = text.replace(f"{{{name}}}", told)
    return text
