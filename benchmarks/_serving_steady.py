"""A steady stream of requests with ids, of which each is accounted for; and what the log holds."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from _serving_bodies import Ask, answer, protocol
from _serving_models import Subject


@dataclass
class Stream:
    """What became of a stream of requests.

    Attributes:
        sent: ids, in the order they were sent.
        answered: those that were answered right.
        lost: what became of the others, counted by kind.
        slowest: seconds of the slowest answer.
    """

    sent: list[str] = field(default_factory=list)
    answered: set[str] = field(default_factory=set)
    lost: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0


@contextlib.contextmanager
def steady(url: str, subject: Subject, rate: float, callers: int = 64) -> Iterator[Stream]:
    """Send `rate` requests a second, each on a connection of its own, until the block is left.

    They are sent when they are due, whether or not those before were answered.
    """
    stream, stopped = Stream(), threading.Event()
    plain = protocol(subject.input, subject.x, binary=False)
    with ThreadPoolExecutor(callers) as pool:
        sender = threading.Thread(
            target=_send, args=(url, subject, plain, stream, stopped, rate, pool)
        )
        sender.start()
        try:
            yield stream
        finally:
            stopped.set()
            sender.join()


def _send(
    url: str, subject: Subject, plain: Ask, stream: Stream, stopped: threading.Event, rate: float,
    pool: ThreadPoolExecutor,
) -> None:  # fmt: skip
    begin = time.perf_counter()
    while not stopped.wait(max(begin + len(stream.sent) / rate - time.perf_counter(), 0)):
        name = f"r{len(stream.sent)}"
        stream.sent.append(name)
        pool.submit(_one, url, _named(plain, name), subject.y, name, stream)


def _one(url: str, ask: Ask, expected: np.ndarray, name: str, stream: Stream) -> None:
    start = time.perf_counter()
    try:
        found = answer(url, ask)
        np.testing.assert_allclose(found, expected, rtol=0.02, atol=0.02)
    except Exception as error:  # every end of a request is counted
        stream.lost[f"{type(error).__name__}: {str(error).strip()[:120]}"] += 1
        return
    stream.answered.add(name)
    stream.slowest = max(stream.slowest, time.perf_counter() - start)


def _named(ask: Ask, name: str) -> Ask:
    return replace(ask, body=json.dumps({"id": name, **json.loads(ask.body)}).encode())


@dataclass(frozen=True)
class Logged:
    """What a log holds of a stream: answers with no row, rows twice, bundles, its losses."""

    missing: int
    twice: int
    bundles: int
    losses: dict[str, int]

    @property
    def accounted(self) -> bool:
        """Whether every answer has its one row, or is in the log's own count of losses."""
        return not self.twice and self.missing <= self.losses.get("queue", 0)


def logged(path: Path, stream: Stream, route: tuple[str, ...] = ("only", "primary")) -> Logged:
    """Hold a log against what was answered."""
    from fettle.monitor.log import open_log

    log = open_log(path)
    found = [row for row in log.rows() if row.route in route and row.status == "ok"]
    rows = Counter(row.id for row in found)
    missing = sum(1 for name in stream.answered if name not in rows)
    twice = sum(1 for count in rows.values() if count > 1)
    return Logged(missing, twice, len({row.sha for row in found}), log.losses)
