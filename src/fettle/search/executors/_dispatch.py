"""Jobs under way: each is begun once, and begun again when whoever did it is lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from fettle.core.errors import CheckFailed
from fettle.search.executors._executor import Crew, Ticket
from fettle.search.executors._job import Done, Job, Lost

Arrived = tuple[Job, Done | Exception]


class Dispatch:
    """Gives jobs to a crew and collects what comes of them, in one thread."""

    def __init__(self, crew: Crew, say: Callable[[str], None]) -> None:
        self.crew, self.say = crew, say
        self._under_way: dict[Ticket, Job] = {}
        self._begun: Counter[str] = Counter()

    @property
    def is_full(self) -> bool:
        """Whether the crew has no room for a further job that doesn't measure."""
        busy = sum(not job.measures for job in self._under_way.values())
        return busy >= self.crew.room

    def has(self, key: str) -> bool:
        """Say whether the job of this key is under way."""
        return any(job.key == key for job in self._under_way.values())

    def start(self, job: Job) -> None:
        """Begin a job, unless it is under way."""
        if not self.has(job.key):
            self._begun[job.key] += 1
            self._under_way[self.crew.start(job)] = job

    def collect(self, seconds: float) -> list[Arrived]:
        """Return the jobs that ended, waiting for at most `seconds`; lost ones begin again.

        Raises:
            Unmanned: nobody is left who could do them.
        """
        arrived: list[Arrived] = []
        for ticket in self.crew.wait(list(self._under_way), seconds):
            job = self._under_way.pop(ticket)
            try:
                arrived.append((job, self.crew.result(ticket)))
            except Lost as lost:
                arrived += self._again(job, lost)
            except Exception as error:  # the job's own, for whoever asked for it
                arrived.append((job, error))
        for job, _ in arrived:
            self._begun.pop(job.key, None)
        return arrived

    def drop(self) -> None:
        """Stop everything that is under way."""
        for ticket in self._under_way:
            self.crew.cancel(ticket)
        self._under_way.clear()
        self._begun.clear()

    def _again(self, job: Job, lost: Lost) -> list[Arrived]:
        begun, most = self._begun[job.key], self.crew.tries
        if begun >= most:
            why = f"`{job.name}` was lost {begun} times, the last time because {lost}"
            return [(job, CheckFailed(f"{why}; see that the nodes have memory enough for it"))]
        self.say(f"  {lost}: `{job.name}` begins again, try {begun + 1} of {most}")
        self.start(job)
        return []
