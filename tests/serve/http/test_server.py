"""Starting, stopping and being told by signals."""

import asyncio
import os
import resource
import signal
import subprocess
import sys
import threading
import time

import pytest
from tests.serve.http.conftest import parsed, received

from fettle.core.errors import InputError
from fettle.serve.http import server as module
from fettle.serve.http._exchange import told
from fettle.serve.http.server import bind, raise_descriptor_limit

GET = b"GET /v2/models/m HTTP/1.1\r\nHost: localhost\r\n\r\n"
HALF = b"POST /v2/models/m HTTP/1.1\r\nHost: localhost\r\nContent-Le"


def test_stopping_answers_what_was_let_in_and_lets_in_nothing_more(serve, parrot):
    entered = threading.Event()

    class Slow(parrot):
        async def model(self, call, name, version):
            entered.set()
            await asyncio.sleep(0.4)
            return told({"stopping": self.stopping})

    run = serve(Slow())
    idle, half, busy = run.connect(), run.connect(), run.connect()
    half.sendall(HALF)
    busy.sendall(GET)
    assert entered.wait(5)
    run.stop()
    (response,) = parsed(received(busy))
    assert response.json == {"stopping": True}
    assert response.headers["connection"] == "close"
    assert received(idle) == b""
    with pytest.raises(OSError, match="refused"):
        run.connect()
    for sock in (idle, half, busy):
        sock.close()


def test_past_the_drain_limit_who_waits_is_told(serve, parrot):
    entered = threading.Event()

    class Stuck(parrot):
        async def model(self, call, name, version):
            entered.set()
            await asyncio.sleep(60)

    run = serve(Stuck(), drain_seconds=0)
    with run.connect() as sock:
        sock.sendall(GET)
        assert entered.wait(5)
        run.stop()
        (response,) = parsed(received(sock))
    assert response.status == 503
    assert "stopped" in response.error


def test_a_taken_port_and_a_foreign_address_are_told():
    with bind("127.0.0.1", 0) as first:
        first.listen()
        with pytest.raises(InputError, match=r"port \d+: .*--port"):
            bind("127.0.0.1", first.getsockname()[1])
    with pytest.raises(InputError, match=r"can't listen on 192\.0\.2\.1"):
        bind("192.0.2.1", 0)
    with pytest.raises(InputError, match="can't listen"):
        bind("a" * 300, 0)


def test_descriptors_are_raised_to_the_connections_or_refused(monkeypatch):
    told_to = []
    monkeypatch.setattr(module.resource, "getrlimit", lambda _: (1024, 4096))
    monkeypatch.setattr(module.resource, "setrlimit", lambda _, limits: told_to.append(limits))
    raise_descriptor_limit(500)
    assert told_to == []
    raise_descriptor_limit(2000)
    assert told_to == [(2256, 4096)]
    with pytest.raises(InputError, match="--connections 4000"):
        raise_descriptor_limit(4000)
    monkeypatch.setattr(module.resource, "getrlimit", lambda _: (1024, resource.RLIM_INFINITY))
    raise_descriptor_limit(4000)
    assert told_to[1:] == [(4256, resource.RLIM_INFINITY)]


PROGRAM = """
import asyncio, sys
from fettle.serve.http.app import App
from fettle.serve.http.security import Gate
from fettle.serve.http.server import Server, listening, new_loop
from fettle.serve.settings import Settings
from tests.serve.http.conftest import Parrot

async def reload():
    print("reloaded", flush=True)
    if sys.argv[1] == "fails":
        raise OSError("no folder")

async def main():
    settings = Settings(port=0)
    server = Server(App(Parrot(), Gate(settings)), settings, reload)
    async with listening(server):
        print(server.url, flush=True)
        await server.stopped()
    print("interrupted", server.interrupted, flush=True)

with asyncio.Runner(loop_factory=new_loop) as runner:
    runner.run(main())
"""


@pytest.mark.parametrize("reload", ["works", "fails"])
def test_signals_reload_and_stop_a_process(reload):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, reload], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    with process:
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        for _ in range(2):
            process.send_signal(signal.SIGHUP)
            assert process.stdout.readline() == "reloaded\n"
            time.sleep(0.05)
        process.send_signal(signal.SIGINT if reload == "works" else signal.SIGTERM)
        out, err = process.communicate(timeout=20)
    assert out == f"interrupted {reload == 'works'}\n"
    assert process.returncode == 0
    assert ("goes on" in err) == (reload == "fails")
