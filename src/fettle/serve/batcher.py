"""Dynamic batching: one model's requests, in batches as large as what waits and as pay.

Nothing waits for company by default: whoever runs the engine takes what is queued when it comes
free, so that batches grow with the load and a lone request runs at once. A batch holds requests of
one shape, and is filled up to a size that was proven to answer as single examples do. Which part of
the queue makes the best batch is read off what each size was measured to take.

Engines run in threads of their own, which take their next batch themselves: an event loop that is
busy parsing doesn't keep an engine waiting. No lock is held while one runs. A run that is shorter
than waking a thread (0.1 to 0.2 ms under load) is made on the loop itself.

What fails together is run again one by one, so that a request that no engine can take fails alone.
A request that is late before its turn is never run. All else (who is let in, who is answered) is
decided on the event loop that asks first; a batcher serves one loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fettle.core.arrays import Arrays
from fettle.core.errors import InputError
from fettle.serve._line import Line, Ticket
from fettle.serve._packing import Sizes, gather, rows_of, scatter
from fettle.serve.errors import BadRequest, Broken, Busy, Late, NotReady, Refused

Run = Callable[[Arrays], Arrays]
_LONGEST_RETRY = 60  # seconds


class Timing(NamedTuple):
    """How long a request waited and ran, in seconds, and how many rows ran with it."""

    queue_s: float
    compute_s: float
    batch: int


class Answer(NamedTuple):
    """A request's own outputs, by name, batch first."""

    outputs: Arrays
    timing: Timing


class Execution(NamedTuple):
    """One run of the engine: how many requests and rows, at what size, for how many seconds."""

    requests: int
    rows: int
    size: int
    compute_s: float


@dataclass(frozen=True)
class BatchLimits:
    """How a model is driven.

    Attributes:
        queue: requests that it may hold, waiting and running.
        delay_s: how long the oldest may wait for company while the engine is free.
        callers: threads that run the engine at once.
        shared: whether requests of different callers may share a batch.
        inline_s: what a run may take to be made on the event loop; 0 never does.
    """

    queue: int = 512
    delay_s: float = 0.0
    callers: int = 1
    shared: bool = True
    inline_s: float = 0.0002


_Outcome = tuple[Ticket, Answer | Refused]


@dataclass(frozen=True)
class _Done:
    """What came of one batch."""

    outcomes: Sequence[_Outcome]
    executions: Sequence[Execution] = ()

    def after(self, outcomes: Sequence[_Outcome], executions: Sequence[Execution] = ()) -> _Done:
        """Return this with what came of others before it."""
        if not outcomes and not executions:
            return self
        return _Done([*outcomes, *self.outcomes], [*executions, *self.executions])


class Batcher:
    """Answers requests with `run`, in batches of `sizes`.

    Args:
        run: the engine, blocking and safe for `limits.callers` threads.
        sizes: batch sizes that are proven, and what each takes; none: each request runs alone.
        limits: how it is driven.
        clock: seconds on a clock that never goes back.
        observe: is told of each run of the engine, on the event loop.
    """

    def __init__(
        self,
        run: Run,
        sizes: Sizes,
        limits: BatchLimits,
        clock: Callable[[], float] = time.monotonic,
        observe: Callable[[Execution], None] | None = None,
    ) -> None:
        self._run, self._sizes, self._limits = run, sizes, limits
        self._clock, self._observe = clock, observe
        quick = sizes.within(limits.inline_s)
        self._quick = quick if quick.proven and not limits.delay_s else None
        self._line, self._ready = Line(), threading.Condition(threading.Lock())
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = self._called = False
        self._held = self._running = self._idle = 0
        self._share_s = 0.0  # of the engine's time that a request took, smoothed
        self._empty: asyncio.Event | None = None

    @property
    def held(self) -> int:
        """How many requests wait or run."""
        return self._held

    async def infer(self, inputs: Arrays, deadline: float) -> Answer:
        """Return the outputs for `inputs`, batch first.

        Args:
            inputs: arrays by name, all with as many rows; they are read until the answer comes.
            deadline: the moment on the clock after which nobody waits for the answer.

        Raises:
            BadRequest: no rows, or more than the largest batch; or the engine refuses the inputs.
            Busy: as many requests are held as may be; it says when to come again.
            Late: the deadline passed.
            Broken: the engine failed on this request, also when it ran alone.
            NotReady: the model is being unloaded.
        """
        ticket = self._admit(inputs, deadline)
        try:
            return await ticket.future
        finally:
            self._forget(ticket)

    async def drain(self, seconds: float) -> int:
        """Wait until all that was let in is answered; return how many are left after `seconds`."""
        if self._held:
            self._empty = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), seconds)
        return self._held

    def close(self) -> None:
        """Refuse what comes and what waits; runs that were begun come to their end."""
        with self._ready:
            self._closed = True
            left = self._line.drop_all()
            self._ready.notify_all()
        for ticket in left:
            _settle(ticket, NotReady("the model was unloaded while this request waited; ask again"))

    def _admit(self, inputs: Arrays, deadline: float) -> Ticket:
        now = self._clock()
        self._refuse(rows_of(inputs), deadline, now)
        loop = self._bound()
        ticket = Ticket(inputs, now, deadline, loop.create_future())
        ticket.timer = loop.call_later(deadline - now, _expire, ticket)
        with self._ready:
            self._line.add(ticket)
        self._held += 1
        self._call_engine(loop)
        return ticket

    def _refuse(self, rows: int, deadline: float, now: float) -> None:
        if self._closed:
            raise NotReady("this model is being unloaded; ask again")
        if now >= deadline:
            raise _late()
        if self._held >= self._limits.queue:
            raise Busy(
                f"the queue of this model is full ({self._limits.queue} requests)",
                retry_after=self._retry_after(),
            )
        largest = self._sizes.largest
        if largest and not 1 <= rows <= largest:
            raise BadRequest(f"a batch of 1 to {largest} rows was expected, got {rows}")

    def _retry_after(self) -> int:
        """Return the whole seconds in which what is held now will be answered."""
        return max(1, min(_LONGEST_RETRY, math.ceil(self._held * self._share_s)))

    def _bound(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
            for number in range(self._limits.callers):
                name = f"fettle-engine-{number}"
                # a daemon: an engine that hangs must not keep the process from ending
                threading.Thread(target=self._work, args=(loop,), name=name, daemon=True).start()
        assert self._loop is loop, "a batcher serves one event loop"
        return loop

    def _forget(self, ticket: Ticket) -> None:
        if ticket.timer is not None:
            ticket.timer.cancel()
        self._held -= 1
        if not self._held and self._empty is not None:
            self._empty.set()
        if ticket.waits:
            with self._ready:
                self._line.remove(ticket)

    def _call_engine(self, loop: asyncio.AbstractEventLoop) -> None:
        """See to what waits once this turn of the loop has let in all that has come."""
        if not self._called:
            self._called = True
            loop.call_soon(self._call)

    def _call(self) -> None:
        self._called = False
        with self._ready:
            taken = self._take_quick()
            if not taken:
                self._ready.notify(min(self._idle, len(self._line)))
        if taken:
            self._deliver(self._compute(taken))
            if len(self._line):
                assert self._loop is not None
                self._call_engine(self._loop)

    def _take_quick(self) -> list[Ticket]:
        if self._quick is None or self._running:
            return []
        return self._line.take(self._quick, self._limits.shared)

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run batches until the batcher is closed; this is what an engine's thread does."""
        while taken := self._next():
            done = self._compute(taken)
            with self._ready:
                self._running -= 1
            try:
                loop.call_soon_threadsafe(self._deliver, done)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return

    def _next(self) -> list[Ticket]:
        """Wait for the next batch; empty when there will be none."""
        with self._ready:
            while not self._closed:
                now = self._clock()
                due = self._line.due(self._sizes.largest, self._limits.delay_s)
                if due is not None and due <= now:
                    self._running += 1
                    return self._line.take(self._sizes, self._limits.shared)
                self._idle += 1
                self._ready.wait(None if due is None else due - now)
                self._idle -= 1
        return []

    def _compute(self, taken: Sequence[Ticket]) -> _Done:
        now = self._clock()
        late: list[_Outcome] = [(each, _late()) for each in taken if not each.wanted(now)]
        wanted = [ticket for ticket in taken if ticket.wanted(now)]
        if not wanted:
            return _Done(late)
        try:
            return self._together(wanted).after(late)
        except Refused as refused:  # it has nothing to do with these inputs
            return _Done([*late, *((ticket, refused) for ticket in wanted)])
        except Exception as error:  # an engine's own kinds have no base in common
            if len(wanted) == 1:
                return _Done([*late, (wanted[0], _broken(error))])
        done = _Done(late)
        for ticket in wanted:
            done = self._compute([ticket]).after(done.outcomes, done.executions)
        return done

    def _together(self, tickets: Sequence[Ticket]) -> _Done:
        rows = [ticket.rows for ticket in tickets]
        total = sum(rows)
        size = self._sizes.padded(total) if self._sizes.proven else total
        batch = gather([ticket.inputs for ticket in tickets], size)
        start = self._clock()
        outputs = self._run(batch)
        seconds = self._clock() - start
        own = scatter(outputs, rows, size) if self._sizes.proven else [outputs]
        answers: list[_Outcome] = [
            (ticket, Answer(found, Timing(start - ticket.since, seconds, total)))
            for ticket, found in zip(tickets, own, strict=True)
        ]
        return _Done(answers, [Execution(len(tickets), total, size, seconds)])

    def _deliver(self, done: _Done) -> None:
        """Answer those who wait, on their loop."""
        for execution in done.executions:
            share = execution.compute_s / (execution.requests * self._limits.callers)
            self._share_s += (share - self._share_s) * (0.1 if self._share_s else 1.0)
            if self._observe is not None:
                self._observe(execution)
        for ticket, outcome in done.outcomes:
            _settle(ticket, outcome)


def _settle(ticket: Ticket, outcome: Answer | Refused) -> None:
    if ticket.future.done():
        return
    if isinstance(outcome, Refused):
        ticket.future.set_exception(outcome)
    else:
        ticket.future.set_result(outcome)


def _expire(ticket: Ticket) -> None:
    _settle(ticket, _late())


def _late() -> Late:
    return Late("the deadline of this request passed before it was answered")


def _broken(error: Exception) -> Refused:
    """Return what the caller is told: an engine's own words may name files."""
    told: Refused
    if type(error) is InputError:
        told = BadRequest(str(error))
    else:
        told = Broken(f"the engine failed on this request ({type(error).__name__})")
    told.__cause__ = error
    return told
