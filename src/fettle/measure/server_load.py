"""MLPerf's server scenario: the highest Poisson rate whose p99 latency stays within a bound.

The loop is open: arrivals are drawn beforehand and fixed in time, and a latency counts from the
moment that its request was *due*. A service that falls behind can't slow its own arrivals down,
so the wait that it causes is seen (the mistake is known as coordinated omission). Requests wait in
one line, first come first served, for `workers` threads; there is no batching.

A rate holds when at most 1 % of requests are later than the bound by the upper end of a 95 %
interval that knows how alike neighbours in a queue are, and fails when more are by its lower end;
what is undecided after the most queries counts as failed. The search halves the gap between the
highest rate that held and the lowest that failed; its answer must hold once more with arrivals that
the search didn't see. The first tenth of each try is left out: the line was still filling.

Sources: V. J. Reddi et al., MLPerf Inference Benchmark, ISCA 2020, arXiv 1911.02549; G. Tene, How
NOT to Measure Latency, 2013, on coordinated omission.

Example:
    found = server(Pool(session_run, workers=2), bound_ms=50)
    found.rate, found.latency_ms["p99"]
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from fettle.core.errors import InputError
from fettle.core.progress import Bar, Reporter, Silent
from fettle.measure._intervals import in_blocks, percentile_interval, share_interval
from fettle.measure._samples import LEAST_FOR_P99, describe_stream, percentile
from fettle.measure._timing import Run, collector_at_rest

Answer = Literal["holds", "fails", "undecided"]
_GIVE_UP = 20  # times the bound: a request so late belongs to a service that is lost
_MOST_LATE = 0.01  # p99
_FILLING = 10
_STEP_DOWN = 0.95
_MOST_STEPS = 60


class Service(Protocol):
    """What serves requests; `Pool` is the real one."""

    @property
    def workers(self) -> int:
        """How many requests are served at once."""

    def cost(self) -> float:
        """Return the mean seconds that one request takes one worker."""

    def play(self, due: np.ndarray, give_up_seconds: float) -> np.ndarray:
        """Serve requests due at these seconds from now; return each one's latency in seconds.

        Infinite from the first request on that waited longer than `give_up_seconds`.
        """


@dataclass(frozen=True)
class Pool:
    """Threads that take requests in order of arrival and call `run`, which must be thread-safe.

    A worker that has nothing to do sleeps until the next request is due, and wakes up some 0.1 ms
    late: that is in the latency, as it is in a server's. `now` and `sleep` are the clock.
    """

    run: Run
    workers: int = 1
    now: Callable[[], float] = time.perf_counter
    sleep: Callable[[float], None] = time.sleep

    def cost(self) -> float:
        """Return the mean seconds of a run when all workers are busy."""
        due = np.zeros(max(20 * self.workers, 20))
        with collector_at_rest():
            self.play(due[: 2 * self.workers], np.inf)
            return float(self.play(due, np.inf).max()) * self.workers / len(due)

    def play(self, due: np.ndarray, give_up_seconds: float) -> np.ndarray:
        """Serve requests due at these seconds from now; return each one's latency in seconds."""
        line = _Line(self, due, give_up_seconds)
        threads = [threading.Thread(target=line.work) for _ in range(self.workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if line.failed:
            raise line.failed[0]
        return line.latency


class _Line:
    """The requests of one play, taken one by one by the workers."""

    def __init__(self, pool: Pool, due: np.ndarray, give_up: float) -> None:
        self.pool, self.give_up = pool, give_up
        self.start = pool.now()
        self.due = due
        self.latency = np.full(len(due), np.inf)
        self.numbers = iter(range(len(due)))
        self.lock = threading.Lock()
        self.failed: list[BaseException] = []
        self.lost = False

    def work(self) -> None:
        try:
            while (number := self._next()) is not None:
                self._serve(number)
        except BaseException as error:
            self.failed.append(error)
            self.lost = True

    def _next(self) -> int | None:
        with self.lock:
            return None if self.lost else next(self.numbers, None)

    def _serve(self, number: int) -> None:
        due = self.start + float(self.due[number])
        wait = due - self.pool.now()
        if wait > 0:
            self.pool.sleep(wait)
        self.pool.run()
        late = self.pool.now() - due
        self.latency[number] = late
        self.lost = self.lost or late > self.give_up


@dataclass(frozen=True)
class Trial:
    """One rate that was tried: p99 in ms with its 95 % interval (None: not bounded).

    p99 is infinite where the service was given up.
    """

    rate: float
    n: int
    p99: float
    low: float | None
    high: float | None
    answer: Answer


@dataclass(frozen=True)
class Server:
    """The highest rate in queries a second whose p99 was shown to stay within `bound_ms`.

    0 when none was. `failed_at` is the lowest rate that didn't hold, or the capacity where none
    failed. `latency_ms` is what `summary` gives at `rate`, from the moment a request was due.
    """

    rate: float
    failed_at: float
    bound_ms: float
    workers: int
    latency_ms: dict[str, Any] | None
    trials: tuple[Trial, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form; an infinite p99 is null there."""
        found = asdict(self)
        found["trials"] = [
            {k: v if not isinstance(v, float) or np.isfinite(v) else None for k, v in t.items()}
            for t in found["trials"]
        ]
        return found


@dataclass(frozen=True)
class Search:
    """How to search: `precision` is the gap at which to stop, as a share of the rate.

    A rate is tried for `seconds` and at least 2,000 requests; undecided, for up to four times as
    long.
    """

    precision: float = 0.05
    seconds: float = 5.0
    queries: int = 2 * LEAST_FOR_P99
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.precision < 1 or self.queries < LEAST_FOR_P99 or self.seconds < 0:
            raise InputError(
                f"a search expects precision in (0, 1), queries >= {LEAST_FOR_P99} and"
                f" seconds >= 0, got {self}"
            )


def poisson(rate: float, n: int, seed: int) -> np.ndarray:
    """Return the seconds at which `n` requests of a Poisson process are due, shape (n,).

    The same seed gives the same arrivals at every rate, only closer together.
    """
    return np.cumsum(np.random.default_rng(seed).exponential(size=n)) / rate


def server(
    service: Service,
    bound_ms: float,
    search: Search | None = None,
    progress: Reporter | None = None,
) -> Server:
    """Return the highest rate of Poisson arrivals whose p99 stays within `bound_ms`.

    Raises:
        InputError: a bound that is not positive.
    """
    if not bound_ms > 0:
        raise InputError(f"`bound_ms` expects a positive number of milliseconds, got {bound_ms}")
    with (progress or Silent()).bar("server", _MOST_STEPS) as bar, collector_at_rest():
        return _Hunt(service, bound_ms, search or Search(), bar).find()


@dataclass
class _Hunt:
    service: Service
    bound_ms: float
    search: Search
    bar: Bar
    trials: list[Trial] = field(default_factory=list)
    last: np.ndarray = field(default_factory=lambda: np.empty(0))

    def find(self) -> Server:
        held, failed = self._bracket()
        if held == 0:
            return self._found(0.0, failed)
        seed = self.search.seed
        while not self._holds(held, seed := seed + 1):
            failed, held = held, held * _STEP_DOWN
            if len(self.trials) > _MOST_STEPS:
                return self._found(0.0, failed)
        return self._found(held, failed)

    def _bracket(self) -> tuple[float, float]:
        """Return the highest rate that held (0: none did) and the lowest that failed."""
        capacity = self.service.workers / self.service.cost()
        held, failed = 0.0, capacity  # where a queue has no end
        rate = capacity / 2
        while failed - held > self.search.precision * failed and rate > capacity / 1000:
            if self._holds(rate, self.search.seed):
                held = rate
            else:
                failed = rate
            rate = (held + failed) / 2 if held else failed / 2
        return held, failed

    def _holds(self, rate: float, seed: int) -> bool:
        """Try a rate, longer where it is undecided; the last latencies are kept."""
        n = max(self.search.queries, int(rate * self.search.seconds))
        for times in (1, 2, 4):
            trial = self._try(rate, n * times, seed)
            if trial.answer != "undecided":
                break
        self.trials.append(trial)
        self.bar.step(f"{rate:.1f}/s {trial.answer}")
        return trial.answer == "holds"

    def _try(self, rate: float, n: int, seed: int) -> Trial:
        give_up = _GIVE_UP * self.bound_ms / 1000
        ms = 1000 * self.service.play(poisson(rate, n, seed), give_up)[n // _FILLING :]
        self.last = ms
        late = share_interval([block > self.bound_ms for block in in_blocks(ms)])
        low, high = percentile_interval(in_blocks(ms), 0.99) or (None, None)
        answer: Answer = "undecided"
        if late[1] <= _MOST_LATE:
            answer = "holds"
        elif late[0] > _MOST_LATE or not np.isfinite(ms[-1]):
            answer = "fails"
        return Trial(rate, len(ms), percentile(ms, 99), low, high, answer)

    def _found(self, rate: float, failed: float) -> Server:
        latency = describe_stream(self.last) if rate else None
        return Server(
            rate, failed, self.bound_ms, self.service.workers, latency, tuple(self.trials)
        )
