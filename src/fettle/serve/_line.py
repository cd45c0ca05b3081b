"""The line in which requests wait: first come, first served, those of one shape together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable
from itertools import islice
from typing import TYPE_CHECKING

from fettle.core.arrays import Arrays
from fettle.serve._packing import Sizes, rows_of

if TYPE_CHECKING:
    from fettle.serve.batcher import Answer


class Ticket:
    """One request that waits, or runs: what it brings, since when, until when."""

    __slots__ = ("deadline", "future", "inputs", "rows", "shape", "since", "timer", "waits")

    def __init__(
        self, inputs: Arrays, since: float, deadline: float, future: asyncio.Future[Answer]
    ) -> None:
        self.inputs, self.since, self.deadline, self.future = inputs, since, deadline, future
        self.rows = rows_of(inputs)
        self.shape = shape_of(inputs)
        self.timer: asyncio.TimerHandle | None = None
        self.waits = False

    def wanted(self, now: float) -> bool:
        """Say whether anyone still waits for the answer."""
        return now < self.deadline and not self.future.done()


def shape_of(inputs: Arrays) -> Hashable:
    """Return what two requests must have in common to share a batch: all but their rows."""
    return tuple([(name, array.dtype, array.shape[1:]) for name, array in inputs.items()])


class Line:
    """Waiting requests. It knows no threads: whoever shares it holds a lock."""

    def __init__(self) -> None:
        self._waiting: dict[Hashable, deque[Ticket]] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def add(self, ticket: Ticket) -> None:
        """Put a request at the end."""
        self._waiting.setdefault(ticket.shape, deque()).append(ticket)
        self._length += 1
        ticket.waits = True

    def remove(self, ticket: Ticket) -> None:
        """Take a request out, if it still waits."""
        if ticket.waits:
            same = self._waiting[ticket.shape]
            same.remove(ticket)
            self._left([ticket], same)

    def take(self, sizes: Sizes, shared: bool = True) -> list[Ticket]:
        """Take out the next batch: the oldest request, and later ones of its shape.

        Empty when nothing waits, or when the oldest is larger than `sizes` hold.
        """
        same = self._oldest()
        if same is None:
            return []
        ahead = [ticket.rows for ticket in self._ahead(same, sizes.largest if shared else 1)]
        taken = [same.popleft() for _ in range(sizes.choose(ahead))]
        self._left(taken, same)
        return taken

    def due(self, largest: int, delay: float) -> float | None:
        """Return when the next batch is due: what is full is due since it came; None for none."""
        same = self._oldest()
        if same is None:
            return None
        full = sum(ticket.rows for ticket in self._ahead(same, largest)) >= largest
        return same[0].since + (0.0 if full else delay)

    def drop_all(self) -> list[Ticket]:
        """Take everything out."""
        lines = list(self._waiting.values())
        everything = [ticket for same in lines for ticket in same]
        for same in lines:
            self._left([same.popleft() for _ in range(len(same))], same)
        return everything

    def _oldest(self) -> deque[Ticket] | None:
        if len(self._waiting) <= 1:
            return next(iter(self._waiting.values()), None)
        return min(self._waiting.values(), key=lambda same: same[0].since)

    @staticmethod
    def _ahead(same: deque[Ticket], most: int) -> list[Ticket]:
        """Return the first few of one shape: a request has a row at least."""
        return list(islice(same, max(most, 1)))

    def _left(self, tickets: list[Ticket], same: deque[Ticket]) -> None:
        for ticket in tickets:
            ticket.waits = False
        self._length -= len(tickets)
        if tickets and not same:
            del self._waiting[tickets[0].shape]
