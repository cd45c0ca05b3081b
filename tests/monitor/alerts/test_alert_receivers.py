"""Alerts told over HTTP, to receivers that really listen."""

import contextlib
import json
import logging
import re
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from fettle.monitor.alerts import Alert
from fettle.monitor.alerts.receivers import Alertmanager, ToLog, Undelivered, Webhook, receiver

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
ON = Alert("slow", {"model": "digits"}, "page", "p99 is <high>", 23.5, 1_790_000_000.0)
OVER = Alert("quiet", {"model": "digits"}, "ticket", "back", 1.0, 1_790_000_000.0, 1_790_000_060.25)


@contextlib.contextmanager
def listening(statuses=()):
    """A server on this machine that keeps what it is posted and answers with these, then 200."""
    kept, answers = [], list(statuses)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            kept.append((self.path, self.headers["Content-Type"], json.loads(body)))
            self.send_response(answers.pop(0) if answers else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", kept
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_webhook_gets_what_alertmanagers_webhooks_get():
    with listening() as (url, kept):
        Webhook(f"{url}/hook?token=t").tell([ON, OVER], [ON])
    ((path, kind, told),) = kept
    assert (path, kind) == ("/hook?token=t", "application/json")
    assert set(told) == {"version", "groupKey", "status", "receiver", "groupLabels", "alerts",
                         "commonLabels", "commonAnnotations", "externalURL",
                         "truncatedAlerts"}  # fmt: skip
    assert (told["version"], told["status"]) == ("4", "firing")
    on, over = told["alerts"]
    assert (on["status"], over["status"]) == ("firing", "resolved")
    assert on["labels"] == {"alertname": "slow", "severity": "page", "model": "digits"}
    assert on["annotations"]["summary"] == "p99 is <high>"
    assert MOMENT.fullmatch(on["startsAt"])
    assert on["endsAt"].startswith("0001-01-01")
    assert over["endsAt"] == "2026-09-21T14:14:20.250Z"
    assert on["fingerprint"] != over["fingerprint"]


def test_a_webhook_is_not_bothered_without_news():
    with listening() as (url, kept):
        Webhook(url).tell([], [ON])
    assert kept == []


def test_an_alertmanager_is_told_what_fires_each_time_and_what_is_over_once():
    with listening() as (url, kept):
        manager = Alertmanager(url + "/")
        manager.tell([], [ON])
        manager.tell([OVER], [ON])
        manager.tell([], [])
    assert [path for path, _, _ in kept] == ["/api/v2/alerts"] * 2
    (first,) = kept[0][2]
    assert set(first) == {"labels", "annotations", "startsAt", "generatorURL"}
    assert first["labels"]["alertname"] == "slow"
    on, over = kept[1][2]
    assert "endsAt" not in on
    assert over["endsAt"] > over["startsAt"]
    for alert in kept[1][2]:  # the types of Alertmanager's openapi.yaml
        assert all(
            isinstance(v, str) for part in ("labels", "annotations") for v in alert[part].values()
        )
        assert all(re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", name) for name in alert["labels"])


def test_a_receiver_that_fails_is_asked_again():
    waits = []
    with listening([503, 429]) as (url, kept):
        Webhook(url, waits.append).tell([ON], [ON])
    assert len(kept) == 3
    assert waits == [1.0, 2.0]


def test_a_receiver_that_refuses_is_not():
    waits = []
    with listening([404]) as (url, kept), pytest.raises(Undelivered, match="status 404"):
        Webhook(url, waits.append).tell([ON], [ON])
    assert (len(kept), waits) == (1, [])


def test_nobody_there_is_told_without_what_is_secret_in_the_address():
    with listening() as (url, _):
        pass
    with pytest.raises(Undelivered) as caught:
        Webhook(f"{url}/services/SECRET?token=SECRET", [].append).tell([ON], [ON])
    assert "SECRET" not in str(caught.value)
    assert url in str(caught.value)


def test_the_log_gets_a_line_for_each_change(caplog):
    with caplog.at_level(logging.INFO, "fettle.alerts"):
        ToLog().tell([ON, OVER], [ON])
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("WARNING", "page: p99 is <high>"),
        ("INFO", "over: back"),
    ]


def test_receivers_come_by_their_kind():
    assert isinstance(receiver("log", ""), ToLog)
    assert receiver("webhook", "http://x") == Webhook("http://x")
    assert receiver("alertmanager", "http://x") == Alertmanager("http://x")
