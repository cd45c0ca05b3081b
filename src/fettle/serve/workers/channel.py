"""Short messages between a server and a worker process, turn by turn: JSON behind its length."""

from __future__ import annotations

import socket
import struct
from typing import Any

import orjson

_LENGTH = struct.Struct("<I")


class Channel:
    """One end of a socket pair."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def send(self, message: dict[str, Any]) -> None:
        """Send one message.

        Raises:
            OSError: the other side is gone.
        """
        text = orjson.dumps(message)
        self._socket.sendall(_LENGTH.pack(len(text)) + text)

    def receive(self, seconds: float | None = None) -> dict[str, Any]:
        """Return the next message.

        Raises:
            TimeoutError: none came for so many seconds.
            EOFError: the other side is gone.
            OSError: so it is, with something still on its way to it.
        """
        self._socket.settimeout(seconds)
        (length,) = _LENGTH.unpack(self._exactly(_LENGTH.size))
        found: dict[str, Any] = orjson.loads(self._exactly(length))
        return found

    def close(self) -> None:
        """Close this end, which ends the other's wait."""
        self._socket.close()

    def _exactly(self, size: int) -> bytes:
        parts = b""
        while len(parts) < size:
            part = self._socket.recv(size - len(parts))
            if not part:
                raise EOFError("the other side closed the channel")
            parts += part
        return parts
