"""Reading a request's body: in time, no larger than allowed, and decompressed no further than that.

A compressed body may be a thousand times its size once it is unpacked, so that what comes out is
counted, not what came in.
"""

from __future__ import annotations

import asyncio
import zlib

from fettle.serve.errors import BadRequest, TooLarge, TooSlow, Unsupported
from fettle.serve.http._exchange import Call
from fettle.serve.room import Held, Room
from fettle.serve.settings import Limits

_WINDOWS = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15, b"identity": None}  # zlib's `wbits`
_LINGER_S = 1.0
_LINGER_BYTES = 256 << 20

GUARDED = "fettle.guarded"
"""Key of a scope whose server gives up on slow bodies itself."""


class HungUp(Exception):
    """The caller left before its request was complete: nobody waits for a reply."""


class Bodies:
    """Reads bodies, each into its part of a room."""

    def __init__(self, limits: Limits, room: Room) -> None:
        self._limits, self._room = limits, room

    def holding(self) -> Held:
        """Return what counts as held all that is read into it, until the end of its block."""
        return self._room.holding()

    async def read(self, call: Call, held: Held) -> bytes:
        """Return the body, unpacked.

        Raises:
            BadRequest: its length is no number, or it isn't what its encoding says.
            Unsupported: an encoding that isn't read here.
            TooLarge, TooSlow: past a limit.
            Busy: the bodies of all requests are.
            HungUp: the caller left.
        """
        encoding = call.single(b"content-encoding")
        window = _window(encoding) if encoding else None
        self._refuse_large(call.number(b"content-length") or 0)
        packed = await self._received(call, held) if call.unread else b""
        if window is None:
            return packed
        # zlib lets other threads run: the loop goes on while a large body is unpacked
        return await asyncio.to_thread(self._unpacked, packed, window, held)

    async def _received(self, call: Call, held: Held) -> bytes:
        if GUARDED in call.scope:  # the server has an eye on the time
            return await self._gathered(call, held)
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                return await self._gathered(call, held)
        except TimeoutError:
            raise TooSlow(
                f"the body was expected within {self._limits.body_seconds:g} s, got"
                f" {call.taken} bytes of it"
            ) from None

    async def _gathered(self, call: Call, held: Held) -> bytes:
        parts: list[bytes] = []
        while call.unread:
            part = await _next(call)
            self._refuse_large(call.taken)
            held.add(len(part))
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _unpacked(self, packed: bytes, window: int, held: Held) -> bytes:
        most = self._limits.body_bytes
        unpacker = zlib.decompressobj(window)
        try:
            body = unpacker.decompress(packed, most + 1)
        except zlib.error as error:
            raise BadRequest(
                f"a body of the encoding it names was expected, got another: {error}"
            ) from None
        self._refuse_large(len(body))
        held.add(len(body))
        if not unpacker.eof or unpacker.unused_data:
            raise BadRequest("one complete compressed body was expected, got a part, or more")
        return body

    def _refuse_large(self, size: int) -> None:
        if size > self._limits.body_bytes:
            raise TooLarge(
                f"a body of at most {self._limits.body_bytes} bytes was expected, got more"
                f" ({size}): send several requests, or raise --body-bytes"
            )


def _window(encoding: bytes) -> int | None:
    """Return zlib's `wbits` for an encoding, None for none; or raise Unsupported."""
    name = encoding.strip().lower()
    if name not in _WINDOWS:
        got = name[:40].decode("ascii", "backslashreplace")
        raise Unsupported(
            f"the content encoding gzip, deflate or identity was expected, got '{got}'"
        )
    return _WINDOWS[name]


async def discard(call: Call) -> None:
    """Throw away what still comes of the body, for a while.

    A caller reads its answer only when it has sent all; closed on at once, it would lose it.
    """
    if call.headers.get(b"expect"):
        return  # it was never told to send
    before = call.taken
    try:
        async with asyncio.timeout(_LINGER_S):
            while call.unread and call.taken - before < _LINGER_BYTES:
                await _next(call)
    except (TimeoutError, HungUp):
        return


async def _next(call: Call) -> bytes:
    message = await call.receive()
    if message["type"] == "http.disconnect":
        raise HungUp
    part: bytes = message.get("body", b"")
    call.unread = bool(message.get("more_body", False))
    call.taken += len(part)
    return part
