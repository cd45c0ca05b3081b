"""`fettle serve`'s application for a server that is not ours: any that speaks ASGI.

Its lifespan loads and proves the models, and drains them at the end: whoever runs it asks it for
nothing before they are ready. Connections are the other server's; so are the limits on how slowly
headers and bodies may come.
"""

from __future__ import annotations

from collections.abc import Sequence

from fettle.core.errors import FettleError
from fettle.monitor.metrics import Latencies
from fettle.serve._observing import Told
from fettle.serve.errors import NotReady
from fettle.serve.http._exchange import Receive, Scope, Send
from fettle.serve.http.handlers import Handlers
from fettle.serve.http.metrics import Metrics
from fettle.serve.http.security import Gate
from fettle.serve.repository import Repository
from fettle.serve.seams import Observer
from fettle.serve.service import Service
from fettle.serve.settings import Settings
from fettle.serve.tracing import app_of, tracing_of


class Replica:
    """One of several servers of the same models, as an ASGI application with a lifespan.

    Args:
        bundles: `[NAME[:VERSION]=]PATH` of each model.
        settings: how they are run, and who may ask; `host` says whether callers are of elsewhere.

    Raises:
        FettleError: no bundle is there, or the settings leave the server open.
    """

    def __init__(self, bundles: Sequence[str], settings: Settings) -> None:
        self._repository = Repository(settings)
        for text in bundles:
            self._repository.give(text)
        latencies, tracing = Latencies(), tracing_of(settings)
        observers: list[Observer | Told] = [latencies, *([tracing] if tracing else [])]
        self._service = Service(self._repository, settings, observers=observers)
        metrics = Metrics(self._service, [latencies.families])
        self._handlers = Handlers(self._service, metrics=metrics)
        self._app = app_of(self._handlers, Gate(settings), tracing=tracing)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or live through the server's life."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await self._app(_below_root(scope), receive, send)

    def check(self) -> None:
        """Return if all models answer.

        Raises:
            NotReady: one doesn't.
        """
        if not self._service.ready():
            raise NotReady("not all models of this replica are ready")

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self._repository.start()
        except FettleError as error:
            await self._close()
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._handlers.stopping = True
        await self._close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _close(self) -> None:
        await self._repository.close()
        self._service.close()


def _below_root(scope: Scope) -> Scope:
    """Return the scope with the path as if the application stood at the server's root."""
    root = scope.get("root_path", "")
    path = scope["path"] if scope["type"] == "http" else ""
    if not root or not path.startswith(root):
        return scope
    return {**scope, "path": path[len(root) :] or "/"}
