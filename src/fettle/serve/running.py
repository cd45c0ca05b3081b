"""A whole server, put together: models, log, observers, protocols; from start to stop.

It listens at once and answers 503 until its models are loaded and proven, so that whoever watches
over it sees a server that comes up, not one that is dead.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

from fettle.monitor.capsule import Capsules
from fettle.monitor.log import PredictionLog
from fettle.monitor.metrics import Family, Latencies, log_families
from fettle.serve.http.access import AccessLog
from fettle.serve.http.app import App
from fettle.serve.http.handlers import Handlers
from fettle.serve.http.metrics import Metrics, connection_families
from fettle.serve.http.security import Gate
from fettle.serve.http.server import Server, listening, raise_descriptor_limit
from fettle.serve.repository import Repository
from fettle.serve.seams import Observer
from fettle.serve.service import Service
from fettle.serve.settings import Settings

Announce = Callable[[Server, Repository], None]


async def serve(bundles: Sequence[str], settings: Settings, announce: Announce) -> bool:
    """Serve until a signal comes; return whether it was Ctrl-C.

    Args:
        bundles: `[NAME[:VERSION]=]PATH` of each model.
        settings: where and how.
        announce: is called once all models are ready.

    Raises:
        FettleError: the settings leave the server open, the address is taken, or a bundle can't be
            loaded.
    """
    gate = Gate(settings)
    raise_descriptor_limit(settings.connections)
    repository = Repository(settings)
    for text in bundles:
        repository.give(text)
    with _observers(settings) as observers:
        service = Service(repository, settings, observers=observers.all)
        metrics = Metrics(service, [observers.families])
        handlers = Handlers(service, observers.log, metrics)
        app = App(handlers, gate, observers.access.add if observers.access else None)
        server = Server(app, settings, reload=repository.reload)
        metrics.add(lambda: connection_families(server.guard))
        try:
            async with listening(server), _grpc(server, service):
                await _until_stopped(server, repository, announce)
        finally:
            await repository.close()
            service.close()
    return server.interrupted


@contextlib.asynccontextmanager
async def _grpc(server: Server, service: Service) -> AsyncIterator[None]:
    """Listen for gRPC within the block, where a port for it is given."""
    settings = server.settings
    if settings.grpc_port is None:
        yield
        return
    from fettle.serve.grpc.server import start_grpc

    grpc = await start_grpc(service, settings)
    server.grpc = f"{settings.host}:{grpc.port}"
    try:
        yield
    finally:
        await grpc.stop(settings.drain_seconds)


async def _until_stopped(server: Server, repository: Repository, announce: Announce) -> None:
    loop = asyncio.get_running_loop()
    stopped = loop.create_task(server.stopped())
    starting = loop.create_task(repository.start())
    await asyncio.wait({stopped, starting}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        return
    try:
        await starting
    except BaseException:
        stopped.cancel()
        raise
    announce(server, repository)
    every = server.settings.watch_seconds
    watching = loop.create_task(repository.watch(every)) if every else None
    await stopped
    if watching is not None:
        watching.cancel()


class _Observers:
    """Who is told of predictions: histograms always; a log and capsules where they are wanted."""

    def __init__(self, settings: Settings, stack: contextlib.ExitStack) -> None:
        self.latencies = Latencies()
        self.log = PredictionLog(settings.log, settings) if settings.log else None
        self.all: list[Observer] = [self.latencies, *([self.log] if self.log else [])]
        if self.log is not None:
            stack.callback(self.log.close)
        if settings.capsules:
            self.all.append(Capsules(settings.capsules, settings.redact))
        self.access = AccessLog(sys.stderr.buffer) if settings.access_log else None
        if self.access is not None:
            stack.callback(self.access.close)

    def families(self) -> list[Family]:
        """Return what they count."""
        return self.latencies.families() + (log_families(self.log.counts) if self.log else [])


@contextlib.contextmanager
def _observers(settings: Settings) -> Iterator[_Observers]:
    with contextlib.ExitStack() as stack:
        yield _Observers(settings, stack)
