"""What the routes beside `infer` read and answer, over a service that is made up."""

import asyncio
import json
from types import SimpleNamespace

import pytest

from fettle.core.errors import InputError
from fettle.serve.errors import BadRequest, Conflict, Forbidden, NotFound, NotReady
from fettle.serve.http._exchange import Call
from fettle.serve.http.handlers import Handlers
from fettle.serve.settings import Settings


class Service:
    """Knows the model `m`; remembers what it was asked."""

    def __init__(self):
        self.settings = Settings(body_bytes=100_000)
        self.asked = []
        self.up = True

    def live(self):
        return True

    def ready(self):
        return self.up

    def model_ready(self, name, version=None):
        self.model_metadata(name, version)
        return self.up

    def metadata(self):
        return {"name": "fettle"}

    def model_metadata(self, name, version):
        if name != "m":
            raise NotFound(f"no model `{name}`")
        return {"name": name, "version": version}

    def model_config(self, name, version):
        return {"max_batch_size": 8}

    def statistics(self, name, version):
        return {"model_stats": [name, version]}

    def index(self, ready=False):
        return [{"name": "m", "state": "READY", "only": ready}]

    async def load(self, name, parameters=None):
        self.asked.append(("load", name, parameters))
        if name == "broken":
            raise Conflict("a bundle that can't be loaded")

    async def unload(self, name):
        self.asked.append(("unload", name))


class Labels:
    """A log that takes so many labels."""

    def __init__(self, room=100):
        self.taken, self.room = [], room

    def label(self, request, value, time_ns=None):
        if value == "refused":
            raise InputError("a label expects something else")
        self.taken.append((request, value, time_ns))
        return len(self.taken) <= self.room


@pytest.fixture
def service():
    return Service()


@pytest.fixture
def ask(service):
    def ask(name, body=None, model="m", version=None, labels=None, metrics=None, stopping=False):
        handlers = Handlers(service, labels, metrics)
        handlers.stopping = stopping
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = [] if body is None else [(b"content-length", b"%d" % len(raw))]

        async def receive():
            return {"type": "http.request", "body": raw, "more_body": False}

        scope = {"type": "http", "method": "POST", "path": "/", "headers": headers, "client": None}
        call = Call(scope, receive, 0.0)
        return asyncio.run(getattr(handlers, name)(call, model, version))

    return ask


def test_health_is_told_in_the_protocols_words(ask, service):
    assert json.loads(ask("live").body) == {"live": True}
    assert json.loads(ask("ready").body) == {"ready": True}
    assert json.loads(ask("model_ready").body) == {"name": "m", "ready": True}
    with pytest.raises(NotReady, match="the server stops"):
        ask("ready", stopping=True)
    with pytest.raises(NotFound):
        ask("model_ready", model="other")
    service.up = False
    with pytest.raises(NotReady, match="repository/index"):
        ask("ready")
    with pytest.raises(NotReady, match="`m`"):
        ask("model_ready")


def test_models_and_server_are_described(ask):
    assert json.loads(ask("model", version="7").body) == {"name": "m", "version": "7"}
    assert json.loads(ask("configuration").body) == {"max_batch_size": 8}
    assert json.loads(ask("statistics", version="1").body) == {"model_stats": ["m", "1"]}
    assert json.loads(ask("server").body) == {"name": "fettle"}
    assert json.loads(ask("front").body)["description"] == "/openapi.json"


def test_models_are_listed_loaded_and_unloaded(ask, service):
    assert json.loads(ask("index").body)[0]["only"] is False
    assert json.loads(ask("index", {"ready": True}).body)[0]["only"] is True
    ask("load")
    ask("load", {"parameters": {"config": "{}"}})
    ask("unload", {"parameters": {"unload_dependents": False}})
    assert service.asked == [("load", "m", None), ("load", "m", {"config": "{}"}), ("unload", "m")]
    with pytest.raises(Conflict):
        ask("load", model="broken")


@pytest.mark.parametrize(
    ("name", "body", "needle"),
    [
        ("index", b"{", "no JSON"),
        ("index", [1], "got list"),
        ("index", {"ready": 1}, "`ready` expects true or false"),
        ("index", {"ready": None}, "`ready` expects true or false"),
        ("load", {"parameters": []}, "`parameters` expects an object"),
        ("unload", b"\xff", "no JSON"),
        ("feedback", {"labels": {}}, "`labels` expects an array"),
        ("feedback", {"labels": []}, "1 to 10000 labels"),
        ("feedback", {"labels": [{}] * 10_001}, "1 to 10000 labels"),
        ("feedback", {"id": "r"}, '"label"'),
        ("feedback", {"labels": [1]}, '"label"'),
        ("feedback", {"id": "", "label": 1}, "`id` expects"),
        ("feedback", {"id": 5, "label": 1}, "`id` expects"),
        ("feedback", {"id": "r" * 257, "label": 1}, "`id` expects"),
        ("feedback", {"id": "r", "label": None}, "`label` expects"),
        ("feedback", {"id": "r", "label": [1]}, "`label` expects"),
        ("feedback", {"id": "r", "label": "refused"}, "something else"),
        ("feedback", {"id": "r", "label": 1, "time_ns": -1}, "`time_ns` expects"),
        ("feedback", {"id": "r", "label": 1, "time_ns": 1.5}, "`time_ns` expects"),
        ("feedback", {"id": "r", "label": 1, "time_ns": True}, "`time_ns` expects"),
    ],
)
def test_what_is_malformed_is_told(ask, name, body, needle):
    with pytest.raises(BadRequest) as refused:
        ask(name, body, labels=Labels())
    assert needle in str(refused.value)


def test_feedback_is_kept_one_by_one_or_many_at_once(ask):
    labels = Labels()
    assert json.loads(ask("feedback", {"id": "r1", "label": 3}, labels=labels).body) == {"taken": 1}
    many = [{"id": "r2", "label": "cat", "time_ns": 5}, {"id": "r3", "label": 0.5}]
    assert json.loads(ask("feedback", {"labels": many}, labels=labels).body) == {"taken": 2}
    assert labels.taken == [("r1", 3, None), ("r2", "cat", 5), ("r3", 0.5, None)]


def test_feedback_that_finds_no_place_is_told(ask):
    given = {"id": "r1", "label": 3}
    with pytest.raises(Forbidden, match="--log"):
        ask("feedback", given)
    with pytest.raises(NotFound):
        ask("feedback", given, model="other", labels=Labels())
    with pytest.raises(NotReady, match="0 of 1"):
        ask("feedback", given, labels=Labels(room=0))


def test_no_piece_is_kept_of_a_list_with_a_broken_one(ask):
    labels = Labels()
    with pytest.raises(BadRequest):
        ask("feedback", {"labels": [{"id": "r", "label": 1}, {"id": "r"}]}, labels=labels)
    assert labels.taken == []


def test_metrics_come_in_their_own_type(ask):
    reply = ask("metrics", metrics=lambda: (b"up 1\n", "text/plain; version=0.0.4"))
    assert (reply.body, reply.kind) == (b"up 1\n", b"text/plain; version=0.0.4")
    with pytest.raises(Forbidden):
        ask("metrics")


def test_a_deadline_is_the_callers_where_that_is_sooner(service):
    handlers = Handlers(service)
    scope = {"type": "http", "headers": [(b"fettle-key", b"anna")], "client": ("1.2.3.4", 5)}
    call = Call(scope, None, 100.0)

    def until(**parameters):
        return handlers._meta(call, SimpleNamespace(parameters=parameters)).deadline

    assert until() == 130.0
    assert until(timeout=2_000_000) == pytest.approx(102.0)
    assert until(timeout=90_000_000) == 130.0
    assert until(timeout=0) == until(timeout=-5) == until(timeout="soon") == 130.0
    meta = handlers._meta(call, SimpleNamespace(parameters={}))
    assert (meta.key, meta.peer, meta.protocol, meta.received) == ("anna", "1.2.3.4:5", "rest", 100)
    call.headers = {b"fettle-key": b"a" * 201}
    with pytest.raises(BadRequest, match="at most 200"):
        until()
