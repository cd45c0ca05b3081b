"""Who is told of alerts: the program's log, a webhook, an Alertmanager.

A webhook gets what Alertmanager's own webhooks get (version 4), so that receivers made for those
take it. An Alertmanager forgets an alert that isn't told again within minutes: tell it all that
fire, each time; it sends no message twice.

Specifications: https://prometheus.io/docs/alerting/latest/configuration/#webhook_config and
Alertmanager's `api/v2/openapi.yaml`.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import logging
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol
from urllib.parse import urlsplit

from fettle.core.errors import FettleError
from fettle.monitor.alerts.watch import Alert

_LOG = logging.getLogger("fettle.alerts")
_PATIENCE_S = 5.0
_TRIES = 3
_NEVER = "0001-01-01T00:00:00Z"  # what Go's zero time reads as, which webhooks expect


class Undelivered(FettleError):
    """A receiver that can't be reached, or refuses."""

    exit_code = 1


class Receiver(Protocol):
    """Somebody who is told of alerts."""

    def tell(self, changes: Sequence[Alert], firing: Sequence[Alert]) -> None:
        """Tell what began or ended, and what is on.

        Raises:
            Undelivered: it can't be told.
        """


class ToLog:
    """Writes what changes to the logger `fettle.alerts`."""

    def tell(self, changes: Sequence[Alert], firing: Sequence[Alert]) -> None:
        """Write a line for each change."""
        del firing
        for alert in changes:
            over = alert.ended is not None
            level = logging.INFO if over else logging.WARNING
            _LOG.log(level, "%s: %s", "over" if over else alert.severity, alert.summary)


@dataclass(frozen=True)
class Webhook:
    """Posts what changes to a URL.

    Args:
        url: of the receiver.
        wait: between tries.
    """

    url: str
    wait: Callable[[float], None] = time.sleep

    def tell(self, changes: Sequence[Alert], firing: Sequence[Alert]) -> None:
        """Post changes, where there are any."""
        del firing
        if changes:
            post(self.url, _webhook(changes), self.wait)


@dataclass(frozen=True)
class Alertmanager:
    """Tells an Alertmanager all that fires, and what is over.

    Args:
        url: without `/api/v2/alerts`.
        wait: between tries.
    """

    url: str
    wait: Callable[[float], None] = time.sleep

    def tell(self, changes: Sequence[Alert], firing: Sequence[Alert]) -> None:
        """Post what fires, and what has just ended."""
        over = [alert for alert in changes if alert.ended is not None]
        told = [_posted(alert) for alert in (*firing, *over)]
        if told:
            post(f"{self.url.rstrip('/')}/api/v2/alerts", told, self.wait)


def receiver(kind: str, place: str) -> Receiver:
    """Return the receiver of a kind of `rules.RECEIVERS`."""
    if kind == "log":
        return ToLog()
    return Webhook(place) if kind == "webhook" else Alertmanager(place)


def post(url: str, document: Any, wait: Callable[[float], None] = time.sleep) -> None:
    """Post JSON; where the other side can't be reached or fails, try again, at most three times.

    Raises:
        Undelivered: it was refused, or not taken at the last try.
    """
    body = json.dumps(document, allow_nan=False).encode()
    trouble = ""
    for attempt in range(_TRIES):
        if attempt:
            wait(2.0**attempt / 2)
        try:
            status = _once(url, body)
        except (OSError, http.client.HTTPException) as error:
            trouble = f"{type(error).__name__}: {error}"
            continue
        if status < 300:
            return
        trouble = f"status {status}"
        if status < 500 and status != 429:  # asked again it would say the same
            break
    raise Undelivered(f"{_shown(url)} took no alerts ({trouble}): is it the right address?")


def _once(url: str, body: bytes) -> int:
    parts = urlsplit(url)
    where = (parts.hostname or "", parts.port)
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(*where, timeout=_PATIENCE_S, context=context)
    else:
        connection = http.client.HTTPConnection(*where, timeout=_PATIENCE_S)
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read(65_536)
        return answer.status
    finally:
        connection.close()


def _shown(url: str) -> str:
    """Return an address without what may be secret in it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}"


def _posted(alert: Alert) -> dict[str, Any]:
    """Return an alert as Alertmanager takes it."""
    labels = {"alertname": alert.name, "severity": alert.severity, **alert.labels}
    told: dict[str, Any] = {
        "labels": labels,
        "annotations": {"summary": alert.summary, "value": f"{alert.value:g}"},
        "startsAt": _moment(alert.started),
        "generatorURL": "",
    }
    if alert.ended is not None:
        told["endsAt"] = _moment(alert.ended)
    return told


def _webhook(changes: Sequence[Alert]) -> dict[str, Any]:
    alerts = []
    for alert in changes:
        posted = {"endsAt": _NEVER, **_posted(alert)}
        name = json.dumps(posted["labels"], sort_keys=True).encode()
        mark = hashlib.sha256(name).hexdigest()[:16]
        status = "firing" if alert.ended is None else "resolved"
        alerts.append({"status": status, **posted, "fingerprint": mark})
    firing = any(alert["status"] == "firing" for alert in alerts)
    return {
        "version": "4",
        "groupKey": "{}:{}",
        "truncatedAlerts": 0,
        "status": "firing" if firing else "resolved",
        "receiver": "fettle",
        "groupLabels": {},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": "",
        "alerts": alerts,
    }


def _moment(seconds: float) -> str:
    found = datetime.fromtimestamp(seconds, UTC)
    return found.isoformat(timespec="milliseconds").replace("+00:00", "Z")
