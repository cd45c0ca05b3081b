"""Rules of alerts, as a person writes them.

```yaml
rules:
  - name: slow
    measure: p99_ms        # see `readings.MEASURES`
    where: {model: digits, route: only}    # left out: each model and route by itself
    above: 20              # or `below`
    clear: 15              # it ends at 15, not at 20, so that it doesn't flutter
    for: 5m                # of being above before it is told
    clear_for: 10m         # of being clear before it is over
    severity: page
    summary: p99 of {model} is {value} ms
to:
  - log
  - webhook: https://hooks.example/fettle
  - alertmanager: http://alertmanager:9093
history: alerts.jsonl
```
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from fettle.core.errors import DataError, UnknownName
from fettle.monitor._settings_file import read_settings, refuse_unknown
from fettle.monitor.alerts.readings import LABELS, MEASURES

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)")
_FIELDS = ("name", "measure", "where", "above", "below", "clear", "for", "clear_for", "severity",
           "summary")  # fmt: skip
_FILE = ("rules", "to", "history")
RECEIVERS = ("log", "webhook", "alertmanager")


@dataclass(frozen=True)
class Rule:
    """When something is worth an alert, and when that is over.

    Attributes:
        name: of the alert.
        measure: what is looked at.
        limit: which it must not pass.
        above: whether more than `limit` is bad; else less.
        clear: where it is over again; on the good side of `limit`, or `limit` itself.
        where: labels that a reading must have.
        wait_s: how long it is past the limit before it is told.
        clear_s: how long it is clear before it is over.
        severity: "page" and "critical" colour the dashboard's first line red.
        summary: in which `{value}` and labels such as `{model}` are filled in.
    """

    name: str
    measure: str
    limit: float
    above: bool = True
    clear: float | None = None
    where: Mapping[str, str] = field(default_factory=dict)
    wait_s: float = 0.0
    clear_s: float = 0.0
    severity: str = "ticket"
    summary: str = ""

    def breached(self, value: float) -> bool:
        """Whether a value is past the limit."""
        return value > self.limit if self.above else value < self.limit

    def cleared(self, value: float) -> bool:
        """Whether a value is so good that what was past the limit is over."""
        end = self.limit if self.clear is None else self.clear
        return value <= end if self.above else value >= end

    def concerns(self, labels: Mapping[str, str]) -> bool:
        """Whether it is about what has these labels."""
        return self.where.items() <= labels.items()

    @classmethod
    def from_json(cls, given: Any) -> Self:
        """Read one entry of a file.

        Raises:
            DataError: it holds something unknown, or a limit that can't be.
            UnknownName: no such measure.
        """
        if not isinstance(given, dict):
            raise DataError(f"a rule expects names with values, got {given!r}")
        name = str(given.get("name") or "")
        refuse_unknown(f"rule `{name}`", given, _FIELDS)
        measure = given.get("measure")
        if measure not in MEASURES:
            raise UnknownName("measure", str(measure), MEASURES)
        if not name or ("above" in given) == ("below" in given):
            raise DataError(f"rule `{name}` expects a `name`, and either `above` or `below`")
        above = "above" in given
        limit = _number(name, "above" if above else "below", given)
        clear = _number(name, "clear", given) if given.get("clear") is not None else None
        if clear is not None and (clear > limit if above else clear < limit):
            raise DataError(
                f"rule `{name}`: `clear` expects the good side of {limit:g}, got {clear:g}"
            )
        return cls(
            name=name,
            measure=measure,
            limit=limit,
            above=above,
            clear=clear,
            where=_where(name, given.get("where") or {}),
            wait_s=seconds(given.get("for", 0)),
            clear_s=seconds(given.get("clear_for", 0)),
            severity=str(given.get("severity", "ticket")),
            summary=str(given.get("summary") or ""),
        )


@dataclass(frozen=True)
class Rules:
    """All of a file.

    Attributes:
        rules: in the order of the file.
        receivers: kind, and where; "log" has no place.
        history: where alerts are kept; None for nowhere.
    """

    rules: tuple[Rule, ...] = ()
    receivers: tuple[tuple[str, str], ...] = (("log", ""),)
    history: Path | None = None

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a file of YAML or JSON; a history without a folder lies beside it.

        Raises:
            DataError: it isn't there, or something in it makes no sense.
            MissingError: YAML, without PyYAML.
        """
        place = Path(path)
        given = read_settings(place)
        refuse_unknown(str(place), given, _FILE)
        entries = given.get("rules") or []
        if not isinstance(entries, list) or not entries:
            raise DataError(f"{place} expects a list of `rules`")
        rules = tuple(Rule.from_json(entry) for entry in entries)
        names = [rule.name for rule in rules]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise DataError(
                f"{place}: rules expect names of their own, got {', '.join(twice)} twice"
            )
        history = given.get("history")
        return cls(
            rules,
            tuple(_receiver(entry) for entry in given.get("to") or ["log"]),
            place.parent / str(history) if history else None,
        )


def seconds(text: Any) -> float:
    """Return a duration: 30, "30s", "5m", "2h", "1d".

    Raises:
        DataError: something else.
    """
    found = _DURATION.fullmatch(str(text).strip())
    if found is None or isinstance(text, bool):
        raise DataError(f"a duration such as 30s, 5m or 2h was expected, got {text!r}")
    return float(found[1]) * _UNITS[found[2] or "s"]


def _number(rule: str, name: str, given: Mapping[str, Any]) -> float:
    value = given[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(f"rule `{rule}`: `{name}` expects a number, got {value!r}")
    return float(value)


def _where(rule: str, given: Any) -> dict[str, str]:
    if not isinstance(given, dict):
        raise DataError(f"rule `{rule}`: `where` expects labels with values, got {given!r}")
    refuse_unknown(f"rule `{rule}`: `where`", given, LABELS)
    return {name: str(value) for name, value in given.items()}


def _receiver(entry: Any) -> tuple[str, str]:
    if entry == "log":
        return "log", ""
    if isinstance(entry, dict) and len(entry) == 1:
        ((kind, place),) = entry.items()
        if (
            kind in RECEIVERS[1:]
            and isinstance(place, str)
            and place.startswith(("http://", "https://"))
        ):
            return kind, place
    raise DataError(f"`to` expects log, webhook: URL or alertmanager: URL, got {entry!r}")
