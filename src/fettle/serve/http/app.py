"""The ASGI application: each request finds its handler, and each failure its status.

Whatever goes wrong is answered with `{"error": …}`. What no one foresaw is told to the server's own
log, and its caller only that it happened.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

from fettle.core.errors import FettleError
from fettle.serve.errors import Broken, NotReady
from fettle.serve.http import routes
from fettle.serve.http._body import HungUp, discard
from fettle.serve.http._exchange import (
    Call,
    Handler,
    Message,
    Receive,
    Reply,
    Scope,
    Send,
    as_refused,
    refusal,
)
from fettle.serve.http.access import Access
from fettle.serve.http.security import Gate

_LOG = logging.getLogger("fettle.serve")
_HUNG_UP = 499
REFUSED = "fettle.refused"
"""Key of a scope under which a server leaves the status with which it answered itself."""
HANG_UP = "fettle.hang_up"
"""Key of a scope under which the application leaves what ends its work when the caller leaves."""


class Answers(Protocol):
    """What holds the handlers, by the names that `routes` gives them."""

    stopping: bool
    """Whether the server is about to stop; then it is not ready."""


class App:
    """Answers HTTP requests.

    Args:
        handlers: the routes' answers.
        gate: who may ask.
        access: is told of each request; None for no access log.
    """

    def __init__(
        self, handlers: Answers, gate: Gate, access: Callable[[Access], None] | None = None
    ) -> None:
        self.handlers, self._gate, self._access = handlers, gate, access
        names = {route.handler for methods in routes.ROUTES.values() for route in methods.values()}
        self._answers: dict[str, Handler] = {name: getattr(handlers, name) for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await _refuse_other(scope, receive, send)
            return
        call = Call(scope, receive, time.monotonic())
        task = asyncio.current_task()
        assert task is not None
        scope[HANG_UP] = task.cancel
        reply = await self._reply(call)
        if reply.status != _HUNG_UP:
            del scope[HANG_UP]
            await respond(call, reply, send)
        if self._access is not None:
            self._access(_line(call, scope.get(REFUSED, reply.status), len(reply.body)))

    async def _reply(self, call: Call) -> Reply:
        try:
            return await self._answer(call)
        except FettleError as error:
            return refusal(as_refused(error))
        except HungUp:
            return Reply(_HUNG_UP)
        except asyncio.CancelledError:
            if HANG_UP not in call.scope:
                return Reply(_HUNG_UP)
            return refusal(NotReady("the server stopped before this was answered"))
        except Exception:
            _LOG.exception("unforeseen, on %s %s", call.method, call.path[:200])
            return refusal(Broken("the server failed on this request, and noted why"))

    async def _answer(self, call: Call) -> Reply:
        route, name, version = routes.find(call.method, call.path)
        if route.audience == "callers":
            self._gate.infer(call.headers)
        elif route.audience == "control":
            self._gate.control(call.headers)
        return await self._answers[route.handler](call, name, version)


async def respond(call: Call, reply: Reply, send: Send) -> None:
    """Send the reply; what is left of the request's body is waited for and thrown away."""
    headers = [
        (b"content-type", reply.kind),
        (b"content-length", b"%d" % len(reply.body)),
        *reply.headers,
    ]
    unread = call.unread
    if unread:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    if unread:
        await send({"type": "http.response.body", "body": reply.body, "more_body": True})
        await discard(call)
        await send({"type": "http.response.body", "body": b""})
    else:
        await send({"type": "http.response.body", "body": reply.body})


async def _refuse_other(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer what is no HTTP: a lifespan is ours, everything else is closed."""
    if scope["type"] != "lifespan":
        await send({"type": "websocket.close", "code": 1003})
        return
    message: Message = await receive()
    while message["type"] != "lifespan.shutdown":
        await send({"type": "lifespan.startup.complete"})
        message = await receive()
    await send({"type": "lifespan.shutdown.complete"})


def _line(call: Call, status: int, given: int) -> Access:
    return Access(
        time=time.time(),
        peer=call.peer,
        method=call.method,
        path=call.path,
        status=status,
        taken=call.taken,
        given=given,
        ms=1000 * (time.monotonic() - call.started),
        id=call.id,
    )
