"""Connections with deadlines and caps: what uvicorn leaves open, closed.

Stock uvicorn keeps half-sent headers for as long as a caller likes, takes headers of any size, and
waits for ever on one that doesn't fetch its answer. Here a guard looks at all connections a few
times a second, which costs a request nothing, and each connection counts its headers as they come.

A connection is in one of these phases:

```
IDLE ──first byte──► HEADERS ──complete──► BODY ──complete──► WORKING ──answered──► IDLE
 idle_seconds         header_seconds        body_seconds       (the service's)
```

beside which `send_seconds` bounds how long an answer may lie unfetched.
"""

from __future__ import annotations

import asyncio
import enum
import time
from typing import Any, cast

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from fettle.serve.errors import BadRequest, HeadersTooLarge, NotReady, Refused, TooSlow
from fettle.serve.http._body import GUARDED
from fettle.serve.http._exchange import Scope
from fettle.serve.http.app import HANG_UP, REFUSED
from fettle.serve.settings import Limits

_SLOWEST_LOOK_S = 0.5
_FASTEST_LOOK_S = 0.02
_LINGER_S = 1.0
_LOOKS = 4  # within the shortest limit
_WORTH_COPYING = 16 << 10
_PER_HEADER = 4  # bytes: the colon, a blank, and the line's end


class Phase(enum.IntEnum):
    """How far a connection's request has come."""

    IDLE = 0
    HEADERS = 1
    BODY = 2
    WORKING = 3


_COUNTED = (Phase.HEADERS, Phase.BODY)


class Guard:
    """Watches over all connections of a server.

    Attributes:
        refused: connections that were closed for what they did, by status.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.connections: set[Connection] = set()
        self.refused: dict[int, int] = {}

    async def watch(self) -> None:
        """Look at all connections again and again, and close those past a limit."""
        limits = self.limits
        shortest = min(
            limits.header_seconds, limits.body_seconds, limits.idle_seconds, limits.send_seconds
        )
        every = min(max(shortest / _LOOKS, _FASTEST_LOOK_S), _SLOWEST_LOOK_S)
        while True:
            await asyncio.sleep(every)
            now = time.monotonic()
            for connection in list(self.connections):
                connection.check(now)

    def admit(self, connection: Connection) -> bool:
        """Count a connection in; past the cap the one that has been idle longest makes room."""
        if len(self.connections) >= self.limits.connections and not self._make_room():
            return False
        self.connections.add(connection)
        return True

    def note(self, status: int) -> None:
        """Count a connection that was refused."""
        self.refused[status] = self.refused.get(status, 0) + 1

    def _make_room(self) -> bool:
        idle = [each for each in self.connections if each.phase is Phase.IDLE and each.quiet]
        if not idle:
            return False
        oldest = min(idle, key=lambda each: each.since)
        self.connections.discard(oldest)
        oldest.transport.close()
        return True


class _Joining:
    """A transport that sends the head of an answer with the body: one system call less.

    Two of them would cost more than all else that a small answer takes, and wake its caller twice.
    """

    __slots__ = ("_head", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport, self._head = transport, b""

    def write(self, data: bytes) -> None:
        """Send it, or keep it until the body comes."""
        if self._head:
            head, self._head = self._head, b""
            if len(data) < _WORTH_COPYING:
                self._transport.write(head + data)
            else:
                self._transport.writelines([head, data])
        elif data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 100"):
            self._head = data
        else:
            self._transport.write(data)

    def flush(self) -> None:
        """Send a head that no body follows."""
        if self._head:
            self._transport.write(self._head)
            self._head = b""

    def close(self) -> None:
        """Close, once all is sent."""
        self.flush()
        self._transport.close()

    def is_closing(self) -> bool:
        """Say whether it is closed, or about to be."""
        return self._transport.is_closing()


class Connection(HttpToolsProtocol):
    """One caller's connection, guarded.

    Attributes:
        phase: how far its request has come.
        since: when that phase began, in seconds of `time.monotonic`.
    """

    def __init__(self, guard: Guard, **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self._guard, self._limits = guard, guard.limits
        self.phase, self.since = Phase.IDLE, time.monotonic()
        self._unfetched: float | None = None  # since when an answer waits to be fetched
        self._raw = 0  # bytes since the last that became a part of a body
        self._why: Refused | None = None
        self._leaving = False

    @property
    def quiet(self) -> bool:
        """Whether no request is under way and no answer is left to be fetched."""
        return self.cycle is None or (self.cycle.response_complete and self._unfetched is None)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take up a connection, or turn it away where there are too many."""
        super().connection_made(transport)
        self._joining = _Joining(transport)
        if not self._guard.admit(self):
            self.refuse(NotReady(f"more than {self._limits.connections} connections are open"))

    def connection_lost(self, exc: Exception | None) -> None:
        """End the work on a request that nobody waits for any more."""
        self._guard.connections.discard(self)
        super().connection_lost(exc)
        self.pipeline.clear()
        if self.cycle is not None:
            hang_up = cast("Scope", self.cycle.scope).pop(HANG_UP, None)
            if hang_up is not None:
                hang_up()

    def data_received(self, data: bytes) -> None:
        """Parse what came; what never becomes a header or a body is counted as it comes."""
        if self._leaving or self.transport.is_closing():
            return
        if self.phase is Phase.IDLE:
            self._enter(Phase.HEADERS)
            self._raw = 0
        self._raw += len(data)
        super().data_received(data)
        if self._raw > self._limits.header_bytes and self.phase in _COUNTED:
            self.refuse(self._too_large())

    def on_message_begin(self) -> None:
        """Begin to count: of a pipelined request, this is the first that is seen."""
        super().on_message_begin()
        self._raw = 0
        if self.phase is not Phase.HEADERS:
            self._enter(Phase.HEADERS)

    def on_headers_complete(self) -> None:
        """Start the application, if the headers are as many and as large as they may be."""
        size = len(self.url) + sum([len(name) + len(value) for name, value in self.headers])
        count = len(self.headers)
        if count > self._limits.header_count or (
            size + count * _PER_HEADER > self._limits.header_bytes
        ):
            self._why = self._too_large()
            raise self._why
        cast("Scope", self.scope)[GUARDED] = True
        super().on_headers_complete()
        self.cycle.transport = cast("asyncio.Transport", self._joining)
        self.headers = []  # a trailer never becomes a header
        self._enter(Phase.BODY)

    def on_body(self, body: bytes) -> None:
        """Hand it on."""
        self._raw = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that all of the request is here."""
        super().on_message_complete()
        self._enter(Phase.IDLE if self.quiet else Phase.WORKING)

    def on_response_complete(self) -> None:
        """Go on with the next request; uvicorn's timer for it is the guard's business here."""
        self.server_state.total_requests += 1
        self._joining.flush()
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self.phase is Phase.WORKING:
            self._enter(Phase.IDLE)

    def pause_writing(self) -> None:
        """Note since when the caller doesn't fetch its answer."""
        super().pause_writing()
        self._unfetched = time.monotonic()

    def resume_writing(self) -> None:
        """Note that it fetches again."""
        super().resume_writing()
        self._unfetched = None

    def check(self, now: float) -> None:
        """Close the connection if it is past a limit."""
        if self.transport.is_closing():
            self._unfetched = self._unfetched or now
        if self._unfetched is not None and now - self._unfetched > self._limits.send_seconds:
            self._guard.note(408)
            self.transport.abort()
            return
        spent = now - self.since
        if self.phase is Phase.IDLE and spent > self._limits.idle_seconds:
            self.transport.close()
        elif self.phase is Phase.BODY and spent > self._limits.body_seconds:
            self.refuse(TooSlow(f"the body was expected within {self._limits.body_seconds:g} s"))
        elif self.phase is Phase.HEADERS and self.quiet and spent > self._limits.header_seconds:
            self.refuse(TooSlow(f"headers were expected within {self._limits.header_seconds:g} s"))

    def send_400_response(self, msg: str) -> None:
        """Say what was wrong with what could not be parsed."""
        del msg
        self.refuse(self._why or BadRequest("a well-formed HTTP/1.1 request was expected"))

    def refuse(self, why: Refused) -> None:
        """Say why and close; a request that came whole before this one is answered first."""
        if self.transport.is_closing() or self._leaving:
            return
        self._leaving = True
        self._guard.note(why.status)
        if not self.quiet and self.phase is not Phase.BODY:
            self.cycle.keep_alive = False
            return
        if self.quiet or not (self.pipeline or self.cycle.response_started):
            self.transport.write(_raw_reply(why))
        if not self.quiet:
            cast("Scope", self.cycle.scope)[REFUSED] = why.status
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._leave()

    def _leave(self) -> None:
        """Close; but what still comes is waited for a while, or the caller would lose the reply."""
        if self in self._guard.connections and self.transport.can_write_eof():
            self.transport.write_eof()
            self.loop.call_later(_LINGER_S, self.transport.close)
        else:
            self.transport.close()

    def _enter(self, phase: Phase) -> None:
        self.phase, self.since = phase, time.monotonic()

    def _too_large(self) -> HeadersTooLarge:
        return HeadersTooLarge(
            f"at most {self._limits.header_count} headers of {self._limits.header_bytes} bytes in"
            " all, with the request's line, were expected, got more"
        )


def _raw_reply(why: Refused) -> bytes:
    """Return a whole HTTP response, for where no application is asked."""
    body = orjson.dumps({"error": str(why)})
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",
        **why.headers,
    }
    lines = [f"{name}: {value}\r\n".encode() for name, value in headers.items()]
    return b"".join([STATUS_LINE[why.status], *lines, b"\r\n", body])
