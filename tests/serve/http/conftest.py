"""Servers on free ports of this machine, and what speaks to them below any client's politeness."""

import asyncio
import contextlib
import json
import socket
import threading
from dataclasses import dataclass

import pytest

from fettle.serve.http._exchange import Reply, told
from fettle.serve.http.app import App
from fettle.serve.http.routes import ROUTES
from fettle.serve.http.security import Gate
from fettle.serve.http.server import Server, listening, new_loop
from fettle.serve.settings import Settings


class Parrot:
    """Handlers that read no model: they answer what they were asked."""

    stopping = False

    def __getattr__(self, name):
        if name not in {route.handler for methods in ROUTES.values() for route in methods.values()}:
            raise AttributeError(name)

        async def answer(call, model, version):
            return told({"handler": name, "name": model, "version": version})

        return answer


@dataclass
class Running:
    """A server in a thread of its own."""

    server: Server
    port: int
    loop: asyncio.AbstractEventLoop

    def talk(self, *parts, timeout=5.0):
        """Send parts, and return all that comes until the server closes or is silent."""
        with self.connect(timeout) as sock:
            for part in parts:
                sock.sendall(part)
            return received(sock)

    def connect(self, timeout=5.0):
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout)

    def stop(self):
        self.loop.call_soon_threadsafe(self.server.handle_exit, 15)


def received(sock):
    """Return what comes until the other side closes, or says nothing more."""
    found = b""
    with contextlib.suppress(TimeoutError, ConnectionResetError):
        while part := sock.recv(65536):
            found += part
    return found


@dataclass(frozen=True)
class Response:
    """One HTTP response."""

    status: int
    headers: dict
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        """The message of a refusal, and nothing beside it."""
        found = self.json
        assert set(found) == {"error"}, found
        assert "Traceback" not in found["error"]
        return found["error"]


def parsed(raw):
    """Return the responses in what came over a connection."""
    found = []
    while raw:
        head, _, rest = raw.partition(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").split("\r\n")
        headers = {k.lower(): v for k, _, v in (each.partition(": ") for each in lines)}
        length = int(headers.get("content-length", 0))
        found.append(Response(int(line.split()[1]), headers, rest[:length]))
        raw = rest[length:]
    return found


@contextlib.contextmanager
def running(app, settings):
    """Run an application in a thread; it is stopped, and its loop closed, at the end."""
    up, box, end = threading.Event(), {}, threading.Event()

    async def main():
        server = Server(app, settings)
        async with listening(server):
            box.update(server=server, loop=asyncio.get_running_loop())
            up.set()
            await server.stopped()

    def thread():
        try:
            with asyncio.Runner(loop_factory=new_loop) as runner:
                runner.run(main())
        except BaseException as error:
            box["error"] = error
            raise
        finally:
            up.set()
            end.set()

    worker = threading.Thread(target=thread, daemon=True)
    worker.start()
    assert up.wait(20)
    assert "error" not in box, box["error"]
    server = box["server"]
    port = int(server.url.rsplit(":", 1)[1])
    run = Running(server, port, box["loop"])
    try:
        yield run
    finally:
        if not end.is_set():
            run.stop()
        assert end.wait(20), "the server didn't stop"


@pytest.fixture
def serve():
    """Start servers with handlers of the test's own; all are stopped at its end."""
    with contextlib.ExitStack() as stack:

        def start(handlers=None, access=None, **settings):
            settings = Settings(port=0, access_log=False, **settings)
            app = App(handlers or Parrot(), Gate(settings), access)
            return stack.enter_context(running(app, settings))

        yield start


@pytest.fixture
def parrot():
    return Parrot


__all__ = ["Reply", "Response", "Running", "parsed", "received"]
