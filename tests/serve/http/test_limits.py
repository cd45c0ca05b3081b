"""Connections that are slow, large, many or malformed, against a real server's sockets."""

import asyncio
import time

import pytest
from tests.serve.http.conftest import parsed, received

from fettle.serve.http._body import Bodies
from fettle.serve.http._exchange import Reply, told
from fettle.serve.room import Room
from fettle.serve.settings import Settings

GET = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
HALF = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
CLOSING = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def only(raw):
    (response,) = parsed(raw)
    return response


def test_a_plain_request_is_answered_and_the_connection_kept(serve):
    run = serve()
    with run.connect(timeout=0.3) as sock:
        for _ in range(3):
            sock.sendall(GET)
            assert only(received(sock)).json["handler"] == "live"


def test_pipelined_requests_are_answered_in_order(serve):
    second = GET.replace(b"live", b"ready", 1)
    raw = serve().talk(GET + second + CLOSING)
    assert [each.json["handler"] for each in parsed(raw)] == ["live", "ready", "live"]


def test_headers_that_never_end_are_given_up_in_time(serve):
    response = only(serve(header_seconds=0.1).talk(HALF))
    assert response.status == 408
    assert "0.1 s" in response.error
    assert response.headers["connection"] == "close"


def test_a_drop_of_headers_now_and_then_does_not_win_time(serve):
    run = serve(header_seconds=0.3)
    began = time.monotonic()
    with run.connect() as sock:
        sock.sendall(HALF)
        sock.settimeout(0.05)
        raw = b""
        while not raw and time.monotonic() - began < 5:
            sock.sendall(b"x")
            raw = received(sock)
        sock.settimeout(5)
        assert only(raw + received(sock)).status == 408


def test_an_idle_connection_is_closed_without_a_word(serve):
    run = serve(idle_seconds=0.1)
    assert run.talk() == b""
    assert only(run.talk(GET)).status == 200


def test_two_hundred_slow_callers_hurt_nobody(serve):
    run = serve(header_seconds=1.0)
    slow = [run.connect() for _ in range(200)]
    for sock in slow:
        sock.sendall(HALF)
    answers = [only(run.talk(CLOSING)).status for _ in range(20)]
    assert answers == [200] * 20
    assert {only(received(sock)).status for sock in slow} == {408}
    for sock in slow:
        sock.close()
    assert run.server.guard.refused[408] == 200


@pytest.mark.parametrize(
    "head",
    [
        b"GET /v2 HTTP/1.1\r\nX: " + b"a" * 2000 + b"\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nX: " + b"a" * 200_000,
        b"GET /" + b"a" * 2000 + b" HTTP/1.1\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\n" + b"A: b\r\n" * 40 + b"\r\n",
    ],
    ids=["one header", "an endless header", "a long path", "many headers"],
)
def test_headers_past_their_limit_are_431(serve, head):
    run = serve(header_bytes=1024, header_count=32, header_seconds=2)
    with run.connect() as sock:
        sock.sendall(head)
        time.sleep(0.05)
        sock.sendall(b"b")
        response = only(received(sock))
    assert response.status == 431
    assert "1024 bytes" in response.error


def test_trailers_are_counted_too_and_never_become_headers(serve, parrot):
    class Reading(parrot):
        async def infer(self, call, name, version):
            while call.unread:
                call.unread = (await call.receive()).get("more_body", False)
            return told(sorted(key.decode() for key, _ in call.scope["headers"]))

    run = serve(Reading(), header_bytes=1024)
    head = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    few = run.talk(head + b"1\r\na\r\n0\r\nAuthorization: me\r\n\r\n", timeout=0.3)
    assert only(few).json == ["host", "transfer-encoding"]
    with run.connect() as sock:
        sock.sendall(head + b"1\r\na\r\n0\r\n")
        time.sleep(0.05)
        sock.sendall(b"A: b\r\n" * 500)
        assert only(received(sock)).status == 431


def test_a_body_that_never_ends_is_given_up_in_time(serve, parrot):
    lines, ends = [], []

    class Reading(parrot):
        async def infer(self, call, name, version):
            bodies = Bodies(Settings(), Room(Settings()))
            await bodies.read(call, bodies.holding())
            ends.append("read")

    run = serve(Reading(), lines.append, body_seconds=0.2)
    head = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"
    response = only(run.talk(head + b"half"))
    assert response.status == 408
    assert "body was expected within 0.2 s" in response.error
    wait_for(lambda: [line.status for line in lines] == [408])
    assert ends == []


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"hello\r\n\r\n",
        b"GET /v2 HTTP/9.9\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /v2 HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v2 HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nBad Header: x\r\n\r\n",
        b"GET /v2\xff HTTP/1.1\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nX: a\x00b\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_no_http_is_400_and_closed(serve, raw):
    response = only(serve().talk(raw))
    assert response.status == 400
    assert response.error


def test_a_broken_chunk_is_400_although_its_handler_waits(serve, parrot):
    class Waiting(parrot):
        async def infer(self, call, name, version):
            while call.unread:
                message = await call.receive()
                if message["type"] == "http.disconnect":
                    return Reply(499)
                call.unread = message["more_body"]
            return told("all")

    head = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    run = serve(Waiting())
    assert only(run.talk(head + b"zz\r\n")).status == 400
    assert only(run.talk(CLOSING)).status == 200


def test_past_the_cap_the_longest_idle_makes_room_and_nobody_else(serve):
    run = serve(connections=2)
    idle, busy = run.connect(), run.connect()
    idle.sendall(GET)
    assert idle.recv(65536)
    busy.sendall(HALF)
    time.sleep(0.05)
    with run.connect() as third:
        third.sendall(HALF)
        assert received(idle) == b""
        response = only(run.talk())
        assert response.status == 503
        assert "2 connections" in response.error
        assert response.headers["retry-after"]
    idle.close()
    busy.close()


def test_who_does_not_fetch_an_answer_is_cut_off(serve, parrot):
    class Large(parrot):
        async def model(self, call, name, version):
            return Reply(200, b"x" * (32 << 20))

    run = serve(Large(), send_seconds=0.2)
    with run.connect() as sock:
        sock.sendall(GET.replace(b"/v2/health/live", b"/v2/models/m"))
        wait_for(lambda: run.server.guard.refused.get(408) == 1)
        wait_for(lambda: not run.server.guard.connections)


def test_who_hangs_up_ends_the_work(serve, parrot):
    seen = []

    class Slow(parrot):
        async def model(self, call, name, version):
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise

    lines = []
    run = serve(Slow(), access=lines.append)
    with run.connect() as sock:
        sock.sendall(GET.replace(b"/v2/health/live", b"/v2/models/m"))
        time.sleep(0.1)
    wait_for(lambda: seen == ["cancelled"])
    wait_for(lambda: [line.status for line in lines] == [499])


def wait_for(condition, seconds=10.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)
