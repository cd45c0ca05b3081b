"""A line of the access log for each call over gRPC, as REST has one for each request."""

from __future__ import annotations

import time
from typing import Any

from fettle.serve.grpc._interface import SERVICE
from fettle.serve.http.access import Access

HUNG_UP = 499
_METHOD = "GRPC"


class Seen:
    """One call, from its arrival on.

    Attributes:
        taken: bytes of its message.
    """

    def __init__(self, name: str, asked: Any, context: Any) -> None:
        self._name, self._asked, self._context = name, asked, context
        self._began = time.monotonic()
        self.taken = int(asked.ByteSize())

    def line(self, found: Any, status: int) -> Access:
        """Return its line; `status` is HTTP's for what was told, `found` the answer, if any."""
        known = getattr(found, "id", "") or getattr(self._asked, "id", "")
        return Access(
            time=time.time(),
            peer=self._context.peer(),
            method=_METHOD,
            path=f"/{SERVICE}/{self._name}",
            status=status,
            taken=self.taken,
            given=0 if found is None else int(found.ByteSize()),
            ms=1000 * (time.monotonic() - self._began),
            id=str(known),
        )
