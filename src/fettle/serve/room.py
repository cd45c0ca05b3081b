"""The memory that is set apart for the bodies of all requests that are under way."""

from __future__ import annotations

from fettle.serve.errors import Busy
from fettle.serve.settings import Limits

_SEVERAL = 2  # requests that a body of the largest size must leave room for


class Room:
    """Knows how many bytes requests hold; REST and gRPC share one.

    Attributes:
        held: bytes.
    """

    def __init__(self, limits: Limits) -> None:
        self._most = max(limits.bodies_bytes, _SEVERAL * limits.body_bytes)
        self.held = 0

    def holding(self, size: int = 0) -> Held:
        """Return what counts `size` bytes, and all that is added, until the end of its block.

        Raises:
            Busy: there is no room for them.
        """
        held = Held(self)
        held.add(size)
        return held

    def take(self, size: int) -> None:
        """Count `size` bytes more, or raise Busy."""
        if self.held + size > self._most:
            raise Busy("the bodies of the requests under way fill the memory that is set apart")
        self.held += size


class Held:
    """What one request holds, until the end of the block that it manages."""

    __slots__ = ("_room", "size")

    def __init__(self, room: Room) -> None:
        self._room, self.size = room, 0

    def add(self, size: int) -> None:
        """Count `size` bytes more, or raise Busy."""
        self._room.take(size)
        self.size += size

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *error: object) -> None:
        self._room.held -= self.size
