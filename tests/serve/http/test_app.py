"""The application without a server: routes, bodies, tokens, refusals and what is logged of them."""

import asyncio
import gzip
import json
import zlib

import pytest
from tests.serve.http.conftest import Parrot, Response

from fettle.core.errors import ModelError
from fettle.serve.errors import Busy
from fettle.serve.http._body import Bodies
from fettle.serve.http._exchange import Reply, told
from fettle.serve.http.app import App
from fettle.serve.http.routes import ROUTES
from fettle.serve.http.security import Gate
from fettle.serve.room import Room
from fettle.serve.settings import Settings

TOKEN, CONTROL = "t" * 32, "c" * 32


class Echo(Parrot):
    """Answers with the body that it read."""

    def __init__(self, settings):
        self.room = Room(settings)
        self.bodies = Bodies(settings, self.room)

    async def infer(self, call, name, version):
        with self.bodies.holding() as held:
            body = await self.bodies.read(call, held)
            return Reply(200, b"%d " % self.room.held + body)


def ask(app, method, path, *parts, client=("10.0.0.1", 5), **headers):
    """Send one request through ASGI; the parts of its body come one by one."""
    named = [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
    if parts and "content_length" not in headers:
        named.append((b"transfer-encoding", b"chunked"))
    waiting, sent = list(parts), []

    async def receive():
        if not waiting:
            await asyncio.sleep(30)
        part = waiting.pop(0)
        if part is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": part, "more_body": bool(waiting)}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": named, "client": client}
    asyncio.run(app(scope, receive, send))
    if not sent:
        return None
    found = {k.decode(): v.decode() for k, v in sent[0]["headers"]}
    return Response(sent[0]["status"], found, b"".join(each["body"] for each in sent[1:]))


@pytest.fixture
def make():
    def make(handlers=Echo, access=None, **settings):
        given = Settings(**settings)
        return App(handlers(given), Gate(given), access)

    return make


@pytest.mark.parametrize("template", list(ROUTES))
def test_every_route_finds_its_handler_and_refuses_other_methods(make, template):
    app = make(lambda _: Parrot())
    path = template.replace("{name}", "m").replace("{version}", "7")
    (method, route), *_ = ROUTES[template].items()
    found = ask(app, method, path).json
    assert found["handler"] == route.handler
    assert found["name"] == ("m" if "{name}" in template else "")
    assert found["version"] == ("7" if "{version}" in template else None)
    refused = ask(app, "DELETE", path)
    assert refused.status == 405
    assert method in refused.headers["allow"]
    assert method in refused.error


@pytest.mark.parametrize(
    "path",
    ["/v1", "/v2/", "/v2/models", "/v2/models/m/nothing", "/v2/models/m/versions", "/../etc",
     "/v2/models/{name}/infer/x", "/v2/models/m/versions/1/infer/2", "/v2/repository/models/m"],
)  # fmt: skip
def test_what_is_no_path_is_404(make, path):
    response = ask(make(), "GET", path)
    assert response.status == 404
    assert "/openapi.json" in response.error


def test_a_body_is_read_in_parts_and_forgotten_after(make):
    app = make()
    for _ in range(2):
        response = ask(app, "POST", "/v2/models/m/infer", b"ab", b"", b"cd")
        assert response.body == b"4 abcd"
    assert app.handlers.room.held == 0


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzip.compress),
        ("GZIP", gzip.compress),
        ("deflate", zlib.compress),
        ("identity", bytes),
    ],
)
def test_compressed_bodies_are_unpacked(make, encoding, pack):
    packed = pack(b"abc" * 50)
    response = ask(make(), "POST", "/v2/models/m/infer", packed, content_encoding=encoding)
    assert response.body.endswith(b" " + b"abc" * 50)


@pytest.mark.parametrize(
    ("status", "needle", "parts", "headers"),
    [
        (413, "1000 bytes", [b"a" * 600, b"a" * 600], {}),
        (413, "1000 bytes", [b"x"], {"content_length": "900000000000"}),
        (413, "1000 bytes", [gzip.compress(bytes(10**6))], {"content_encoding": "gzip"}),
        (415, "got 'br'", [b"a"], {"content_encoding": "br"}),
        (400, "got another", [b"no gzip"], {"content_encoding": "gzip"}),
        (400, "one complete", [gzip.compress(b"a")[:-4]], {"content_encoding": "gzip"}),
        (400, "one complete", [gzip.compress(b"a") * 2], {"content_encoding": "gzip"}),
        (400, "whole number", [b"a"], {"content_length": "1e3"}),
        (408, "0.2 s", [b"a", b"b"], {"slow": "yes"}),
    ],
)
def test_bodies_past_a_limit_are_refused(make, status, needle, parts, headers):
    app = make(body_bytes=1000, body_seconds=0.2)
    if headers.pop("slow", None):
        response = slowly(app)
    else:
        response = ask(app, "POST", "/v2/models/m/infer", *parts, **headers)
    assert response.status == status
    assert needle in response.error
    assert app.handlers.room.held == 0


def slowly(app):
    """Send a part of a body now and then, and never the last."""
    sent = []

    async def receive():
        await asyncio.sleep(0.15)
        return {"type": "http.request", "body": b"a", "more_body": True}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v2/models/m/infer", "client": None,
             "headers": [(b"transfer-encoding", b"chunked")]}  # fmt: skip
    asyncio.run(app(scope, receive, send))
    return Response(sent[0]["status"], {}, sent[1]["body"])


def test_all_bodies_together_are_bounded(make):
    app = make(body_bytes=1000, bodies_bytes=1)
    app.handlers.room.held = 1900
    response = ask(app, "POST", "/v2/models/m/infer", b"a" * 500)
    assert response.status == 429
    assert response.headers["retry-after"] == "1"
    assert app.handlers.room.held == 1900


def test_a_caller_that_leaves_is_not_answered(make):
    lines = []
    app = make(access=lines.append)
    assert ask(app, "POST", "/v2/models/m/infer", b"a", None) is None
    assert [line.status for line in lines] == [499]


def test_what_nobody_foresaw_is_500_without_a_trace_of_it(make, caplog):
    class Broken(Parrot):
        async def live(self, call, name, version):
            raise ZeroDivisionError("secret")

    response = ask(make(lambda _: Broken()), "GET", "/v2/health/live")
    assert response.status == 500
    assert "secret" not in response.error
    assert "secret" in caplog.text


def test_errors_of_fettle_keep_their_status_and_headers(make):
    class Refusing(Parrot):
        async def live(self, call, name, version):
            raise Busy("full", retry_after=7)

        async def ready(self, call, name, version):
            raise ModelError("half a pair: \ud800")

    app = make(lambda _: Refusing())
    busy = ask(app, "GET", "/v2/health/live")
    assert (busy.status, busy.headers["retry-after"]) == (429, "7")
    assert ask(app, "GET", "/v2/health/ready").status == 400


def test_each_request_is_one_line_of_the_access_log(make):
    lines = []
    app = make(access=lines.append)
    ask(app, "POST", "/v2/models/m/infer", b"abc")
    ask(app, "GET", "/nothing")
    first, second = lines
    assert (first.method, first.path, first.status) == ("POST", "/v2/models/m/infer", 200)
    assert (first.taken, first.given, first.peer) == (3, 5, "10.0.0.1:5")
    assert first.ms >= 0
    assert second.status == 404


BEARER = {"authorization": f"Bearer {TOKEN}"}
CONTROLLING = {"authorization": f"bearer {CONTROL}"}
LOAD, INFER, LIVE = "/v2/repository/models/m/load", "/v2/models/m/infer", "/v2/health/live"


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        (INFER, {}, 401),
        (INFER, {"authorization": "Bearer " + "x" * 32}, 401),
        (INFER, {"authorization": f"Basic {TOKEN}"}, 401),
        (INFER, {"authorization": TOKEN}, 401),
        (INFER, BEARER, 200),
        (INFER, CONTROLLING, 200),
        (LOAD, BEARER, 401),
        (LOAD, {}, 401),
        (LOAD, CONTROLLING, 200),
        (LIVE, {}, 200),
    ],
)
def test_tokens_let_in_who_has_them(make, path, headers, status):
    app = make(lambda _: Parrot(), tokens=(TOKEN,), control_tokens=(CONTROL,))
    response = ask(app, "GET" if path == LIVE else "POST", path, **headers)
    assert response.status == status
    if status == 401:
        assert response.headers["www-authenticate"].startswith("Bearer")
        assert "Authorization: Bearer" in response.error


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "localhost:8000"}, 200),
        ({"host": "127.0.0.1:8000"}, 200),
        ({"host": "[::1]:8000"}, 200),
        ({}, 200),
        ({"host": "evil.example:8000"}, 403),
        ({"host": "localhost:8000", "origin": "http://evil.example"}, 403),
        ({"host": "localhost:8000", "origin": "null"}, 403),
        ({"host": "localhost:8000", "origin": "http://localhost:8000"}, 200),
        ({"host": "localhost:8000", "sec_fetch_site": "cross-site"}, 403),
    ],
)
def test_no_web_page_controls_a_server_on_loopback(make, headers, status):
    assert ask(make(lambda _: Parrot()), "POST", LOAD, **headers).status == status


def test_control_is_closed_to_other_machines_without_tokens_for_it(make):
    app = make(lambda _: Parrot(), host="0.0.0.0", insecure=True)
    response = ask(app, "POST", LOAD, host="localhost")
    assert response.status == 403
    assert "--control-token-file" in response.error
    assert ask(app, "POST", INFER).status == 200


def test_a_lifespan_is_acknowledged_and_a_websocket_closed(make):
    app, said = make(), []
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive():
        return messages.pop(0)

    async def send(message):
        said.append(message["type"])

    asyncio.run(app({"type": "lifespan"}, receive, send))
    asyncio.run(app({"type": "websocket"}, receive, send))
    assert said == ["lifespan.startup.complete", "lifespan.shutdown.complete", "websocket.close"]


def test_told_is_json():
    assert json.loads(told({"a": [1]}).body) == {"a": [1]}
