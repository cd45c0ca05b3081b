"""A whole server, put together: models, log, observers, protocols; from start to stop.

It listens at once and answers 503 until its models are loaded and proven, so that whoever watches
over it sees a server that comes up, not one that is dead.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from fettle.core.bundle import is_bundle
from fettle.monitor.answered import Answered
from fettle.monitor.capsule import Capsules
from fettle.monitor.dashboard.live import Live, Showing
from fettle.monitor.log import PredictionLog
from fettle.monitor.metrics import Family, Latencies, log_families
from fettle.serve._observing import Channel, Told
from fettle.serve._places import given
from fettle.serve.http.access import AccessLog
from fettle.serve.http.handlers import Handlers
from fettle.serve.http.metrics import (
    Metrics,
    channel_families,
    connection_families,
    worker_families,
)
from fettle.serve.http.security import Gate
from fettle.serve.http.server import Server, listening, raise_descriptor_limit
from fettle.serve.repository import Repository
from fettle.serve.rollout.assembly import rollout_of
from fettle.serve.rollout.riding import Rollout
from fettle.serve.rollout.settings import RolloutSettings
from fettle.serve.room import Room
from fettle.serve.seams import ONLY, Observer
from fettle.serve.service import Service
from fettle.serve.settings import Settings
from fettle.serve.tracing import app_of, tracing_of

Announce = Callable[[Server, Repository], None]


async def serve(
    bundles: Sequence[str],
    settings: Settings,
    announce: Announce,
    wanted: RolloutSettings | None = None,
) -> bool:
    """Serve until a signal comes; return whether it was Ctrl-C.

    Args:
        bundles: `[NAME[:VERSION]=]PATH` of each model.
        settings: where and how.
        announce: is called once all models are ready.
        wanted: what rides along with them; None for nothing.

    Raises:
        FettleError: the settings leave the server open, the address is taken, or a bundle can't be
            loaded.
    """
    gate = Gate(settings)
    raise_descriptor_limit(settings.connections)
    repository = Repository(settings)
    for text in bundles:
        repository.give(text)
    wanted = wanted or RolloutSettings()
    with _observers(settings, _showing(bundles, settings, wanted)) as observers:
        riding = rollout_of(wanted, settings, repository, observers.record)
        models = _Models(repository, riding)
        told = [*riding.observers, *observers.all]  # what compares ends before what records it
        service = Service(repository, settings, riding.route, told, riding.ready)
        server = _server(service, gate, observers, models)
        try:
            async with listening(server), _grpc(server, service, observers):
                await _until_stopped(server, models, announce)
        finally:
            await repository.close()
            service.close()
            await riding.close()
    return server.interrupted


class _Models(NamedTuple):
    """The models, and what rides along with them."""

    repository: Repository
    rollout: Rollout

    async def start(self) -> None:
        await self.repository.start()
        await self.rollout.start()

    async def reload(self) -> None:
        await self.repository.reload()
        await self.rollout.reload()

    async def watch(self, every_s: float) -> None:
        await asyncio.gather(self.repository.watch(every_s), self.rollout.watch(every_s))

    def workers_lost(self) -> Mapping[str, Mapping[tuple[str, str], int]]:
        """Return how many worker processes each bundle has lost, by its part."""
        return {ONLY: self.repository.workers_lost(), **self.rollout.workers_lost()}


def _server(service: Service, gate: Gate, observers: _Observers, models: _Models) -> Server:
    metrics = Metrics(service, [observers.families, models.rollout.families])
    metrics.add(lambda: worker_families(models.workers_lost()))
    metrics.add(lambda: channel_families(service.channels))
    page = observers.dashboard.answer if observers.dashboard else None
    handlers = Handlers(service, observers.log, metrics, models.rollout, observers.room, page)
    access = observers.access.add if observers.access else None
    app = app_of(handlers, gate, access, observers.tracing)
    server = Server(app, service.settings, reload=models.reload)
    metrics.add(lambda: connection_families(server.guard))
    return server


@contextlib.asynccontextmanager
async def _grpc(server: Server, service: Service, observers: _Observers) -> AsyncIterator[None]:
    """Listen for gRPC within the block, where a port for it is given."""
    settings = server.settings
    if settings.grpc_port is None:
        yield
        return
    from fettle.serve.grpc.server import start_grpc

    access = observers.access.add if observers.access else None
    grpc = await start_grpc(service, settings, observers.room, access, observers.tracing)
    server.grpc = f"{settings.host}:{grpc.port}"
    try:
        yield
    finally:
        await grpc.stop(settings.drain_seconds)


async def _until_stopped(server: Server, models: _Models, announce: Announce) -> None:
    loop = asyncio.get_running_loop()
    stopped = loop.create_task(server.stopped())
    starting = loop.create_task(models.start())
    await asyncio.wait({stopped, starting}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        return
    try:
        await starting
    except BaseException:
        stopped.cancel()
        raise
    announce(server, models.repository)
    every = server.settings.watch_seconds
    watching = loop.create_task(models.watch(every)) if every else None
    await stopped
    if watching is not None:
        watching.cancel()


class _Observers:
    """Who is told of predictions: histograms always; a log and capsules where they are wanted.

    Attributes:
        room: for the bodies of requests of all protocols.
        dashboard: the page on what the log says; None without a log.
    """

    def __init__(
        self, settings: Settings, showing: Showing | None, stack: contextlib.ExitStack
    ) -> None:
        self.latencies = Latencies()
        self.room = Room(settings)
        self.log = PredictionLog(settings.log, settings) if settings.log else None
        self.capsules = _capsules(settings)
        self.tracing = tracing_of(settings)
        kept = [each for each in (self.log, self.capsules, self.tracing) if each is not None]
        self.all: list[Observer | Told] = [self.latencies, *kept]
        if self.log is not None:
            stack.callback(self.log.close)
        self.dashboard = Live(showing) if showing else None
        if self.dashboard is not None:
            self.dashboard.start()
            stack.callback(self.dashboard.close)
        self.access = AccessLog(sys.stderr.buffer) if settings.access_log else None
        if self.access is not None:
            stack.callback(self.access.close)

    def record(self, seen: Answered) -> None:
        """Keep what was answered for comparison alone: no caller waited for it."""
        if self.log is not None:
            self.log.tell(seen)
        if self.capsules is not None:
            self.capsules.tell(seen)

    def families(self) -> list[Family]:
        """Return what they count."""
        return self.latencies.families() + (log_families(self.log.counts) if self.log else [])


def _capsules(settings: Settings) -> Channel | None:
    if settings.capsules is None:
        return None
    return Channel(Capsules(settings.capsules, settings.redact))


def _showing(bundles: Sequence[str], settings: Settings, wanted: RolloutSettings) -> Showing | None:
    """Return what the dashboard shows; None without a log. A lone bundle is held to its word."""
    if not settings.log:
        return None
    paths = [given(text)[2] for text in bundles]
    alone = str(paths[0]) if len(paths) == 1 and is_bundle(paths[0]) else ""
    return Showing(str(settings.log), bundle=alone, share=wanted.split if wanted.ab else None)


@contextlib.contextmanager
def _observers(settings: Settings, showing: Showing | None) -> Iterator[_Observers]:
    with contextlib.ExitStack() as stack:
        yield _Observers(settings, showing, stack)
