"""The server: uvicorn with guarded connections, and the signals that a supervisor sends.

SIGTERM and SIGINT let in nothing more, answer what was let in and stop, within the drain limit; a
second one stops at once. SIGHUP looks at the folders again and loads what has changed, and reads
the certificate anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import logging
import resource
import signal
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import FrameType

import uvicorn

from fettle.core.errors import InputError, MissingError
from fettle.core.shelf import INSTALL
from fettle.serve.http.app import App
from fettle.serve.http.limits import Connection, Guard
from fettle.serve.http.security import load_certificate, tls_context
from fettle.serve.settings import Settings

_LOG = logging.getLogger("fettle.serve")
_SPARE = 256  # descriptors beside those of connections
_BACKLOG = 2048
_FAREWELL_S = 1.0
_STOPPING = (signal.SIGTERM, signal.SIGINT)


class Server(uvicorn.Server):
    """Serves `app` on an open socket.

    Args:
        app: answers.
        settings: where and how.
        reload: is called on SIGHUP; None ignores it.

    Attributes:
        guard: watches over its connections.
        interrupted: whether it was Ctrl-C that stopped it.
        grpc: where gRPC is reached beside it, None where it isn't.
    """

    def __init__(
        self, app: App, settings: Settings, reload: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        self.app, self.settings, self._reload = app, settings, reload
        self.guard = Guard(settings)
        self._tls = tls_context(settings)
        self.interrupted = False
        self.grpc: str | None = None
        self._stopping = asyncio.Event()
        self._reloading: asyncio.Task[None] | None = None
        super().__init__(_config(app, self.guard, settings))

    @property
    def url(self) -> str:
        """Where it is reached."""
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        return f"{'https' if self._tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen: as uvicorn does, and with a limit for a handshake of TLS."""
        await self.lifespan.startup()
        loop = asyncio.get_running_loop()
        make = functools.partial(
            Connection,
            self.guard,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
            _loop=loop,
        )
        handshake_s = self.settings.header_seconds if self._tls else None
        self.servers = [
            await loop.create_server(
                make, sock=each, ssl=self._tls, backlog=_BACKLOG, ssl_handshake_timeout=handshake_s
            )
            for each in sockets or []
        ]
        self.started = True

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal comes, and all that was let in is answered."""
        loop = asyncio.get_running_loop()
        watching = loop.create_task(self.guard.watch())
        with self._signals(loop):
            try:
                await self._serve(sockets)
                if self.server_state.tasks:  # past the drain limit; they still say so
                    await asyncio.wait(self.server_state.tasks, timeout=_FAREWELL_S)
            finally:
                watching.cancel()

    @contextlib.contextmanager
    def _signals(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        handlers: dict[signal.Signals, Callable[[], object]] = {
            each: functools.partial(self.handle_exit, each) for each in _STOPPING
        }
        if self._reload is not None:
            handlers[signal.SIGHUP] = self._hang_up
        if threading.current_thread() is not threading.main_thread():
            handlers = {}  # signals are the main thread's
        for each, handler in handlers.items():
            loop.add_signal_handler(each, handler)
        try:
            yield
        finally:
            for each in handlers:
                loop.remove_signal_handler(each)

    async def stopped(self) -> None:
        """Wait until it begins to stop."""
        await self._stopping.wait()

    def handle_exit(self, sig: int, frame: FrameType | None = None) -> None:
        """Begin to stop; the second time, stop at once."""
        del frame
        self.interrupted = sig == signal.SIGINT
        self.app.handlers.stopping = True
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True
        self._stopping.set()

    def _hang_up(self) -> None:
        if self._reloading is None or self._reloading.done():
            self._reloading = asyncio.get_running_loop().create_task(self._reload_quietly())

    async def _reload_quietly(self) -> None:
        assert self._reload is not None
        try:
            load_certificate(self._tls, self.settings)
            await self._reload()
        except Exception:
            _LOG.exception("the models could not be looked at again; what serves goes on")


@contextlib.asynccontextmanager
async def listening(server: Server) -> AsyncIterator[Server]:
    """Run the server within the block; at its end it is stopped as by SIGTERM.

    Raises:
        InputError: the address can't be listened on.
    """
    sock = bind(server.settings.host, server.settings.port)
    task = asyncio.get_running_loop().create_task(server.serve([sock]))
    while not server.started and not task.done():
        await asyncio.sleep(0)
    try:
        yield server
    finally:
        if not server.should_exit:
            server.handle_exit(signal.SIGTERM)
        await task


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that will listen on a host and port.

    Raises:
        InputError: the host is none of this machine, or the port is taken.
    """
    with contextlib.ExitStack() as undo:
        try:
            found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
            family, kind, protocol, _, address = found[0]
            sock = undo.enter_context(socket.socket(family, kind, protocol))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
        except (OSError, UnicodeError) as error:
            raise InputError(
                f"can't listen on {host} port {port}: {error}; choose another --host or --port"
                " (0 takes a free one)"
            ) from error
        undo.pop_all()
    return sock


def new_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop: uvloop's where there is one."""
    try:
        loop: asyncio.AbstractEventLoop = importlib.import_module("uvloop").new_event_loop()
    except ModuleNotFoundError:
        return asyncio.new_event_loop()
    return loop


def raise_descriptor_limit(connections: int) -> None:
    """Let this process have a descriptor for each connection.

    Raises:
        InputError: the machine allows fewer.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _SPARE
    if soft >= wanted or soft == resource.RLIM_INFINITY:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise InputError(
            f"`--connections {connections}` expects {wanted} file descriptors, this machine allows"
            f" {hard}: raise `ulimit -Hn`, or take fewer connections"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _config(app: App, guard: Guard, settings: Settings) -> uvicorn.Config:
    try:
        return uvicorn.Config(
            app,
            http=functools.partial(Connection, guard),  # type: ignore[arg-type]
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
        )
    except ModuleNotFoundError as error:
        raise MissingError("`fettle serve`", INSTALL["uvicorn"]) from error
