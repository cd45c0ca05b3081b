"""Alerts: what is worth waking somebody for, told once and kept.

```python
told = Alerts(Rules.read("rules.yaml"))
told.look(state)           # what `dashboard.gather` returned; tells the receivers what changed
```

`rules` says what a file holds, `readings` what can be looked at, `watch` when an alert begins and
is over, `receivers` who is told, `history` what was. `prometheus` writes rules and a dashboard for
those who have Prometheus and Grafana already.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fettle.core.errors import FettleError
from fettle.monitor.alerts.history import History
from fettle.monitor.alerts.readings import over_time
from fettle.monitor.alerts.receivers import Receiver, receiver
from fettle.monitor.alerts.rules import Rule, Rules
from fettle.monitor.alerts.watch import Alert, Watch

__all__ = ["Alert", "Alerts", "Rule", "Rules", "Watch"]


class Alerts:
    """Rules, what became of them, and who is told.

    Args:
        rules: what is worth an alert.
        receivers: who is told; None for those of the rules.

    Attributes:
        undelivered: what receivers said who couldn't be told.

    Raises:
        DataError, StorageError: the history can't be read.
    """

    def __init__(self, rules: Rules, receivers: list[Receiver] | None = None) -> None:
        self.rules = rules
        self.history = History(rules.history)
        self._watch = Watch(rules.rules, self.history.firing)
        self._receivers = (
            [receiver(*each) for each in rules.receivers] if receivers is None else receivers
        )
        self.undelivered: list[str] = []

    def look(self, state: Mapping[str, Any]) -> list[Alert]:
        """Look at the windows that ended since the last look; return what began or ended.

        The last window isn't over while the log is written, so it is looked at when the next one
        has begun, or `made` is past its end.

        Raises:
            StorageError: the history can't be written.
        """
        changes: list[Alert] = []
        until = self.history.until
        for now, readings in over_time(state):
            if self.history.until < now <= state["made"]:
                changes += self._watch.look(now, readings)
                until = now
        if until > self.history.until:
            self.history.add(changes, until)
        self._tell(changes)
        return changes

    def to_json(self) -> dict[str, Any]:
        """Return what the dashboard shows."""
        told = self.history.to_json(len(self.rules.rules))
        return {**told, "undelivered": list(self.undelivered)}

    def _tell(self, changes: list[Alert]) -> None:
        """Tell everybody; one that can't be reached keeps nobody else from it."""
        self.undelivered = []
        for each in self._receivers:
            try:
                each.tell(changes, self._watch.active)
            except FettleError as error:
                self.undelivered.append(str(error))
