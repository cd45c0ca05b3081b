"""The seam of an executor: who does the stages of a study.

An executor is what a person names (`local`, `ray://10.0.0.5:6379`); a crew is what it opens:
workers who take jobs and hand back what came of them. The driver alone writes the store and the
journal, whoever does the work.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from fettle.core.errors import MissingError
from fettle.core.plugin import Plugin
from fettle.search.executors._job import Done, Job

Ticket = Any  # what a crew knows a job by that it was given; hashable


class Unmanned(MissingError):
    """There is nobody left who could do the work: this ends the study, not just one candidate."""


@dataclass(frozen=True, kw_only=True)
class Executor(Plugin):
    """Where the stages of a study are done."""

    def crew(self, say: Callable[[str], None]) -> Crew | None:
        """Return the workers, ready to take jobs; None: the study's own process does it all.

        `say` shows a line of progress.

        Raises:
            MissingError: what it needs isn't installed, or nobody answers.
            InputError: the workers are not fit for a study.
        """
        raise NotImplementedError


class Crew(ABC):
    """Workers that take jobs.

    Attributes:
        name: for people.
        room: how many jobs that don't measure they can do at once.
        tries: how often a job is begun before its being lost is an error.
        target: the machine and the versions of those who measure, as `machine_report` has it.
    """

    name: ClassVar[str]
    room: int
    tries: int
    target: dict[str, Any]

    @abstractmethod
    def start(self, job: Job) -> Ticket:
        """Begin a job and return at once.

        Jobs that measure are done where the target is, one at a time on each node, and nothing
        else runs on the node meanwhile.
        """

    @abstractmethod
    def wait(self, tickets: Sequence[Ticket], seconds: float) -> list[Ticket]:
        """Return the finished ones among `tickets`, after at most `seconds` without any.

        Raises:
            Unmanned: nobody is left who could finish them.
        """

    @abstractmethod
    def result(self, ticket: Ticket) -> Done:
        """Return what came of a finished job.

        Raises:
            Lost: the worker is gone, and the job with it.
            Exception: what the job raised, of the same kind and with the same words.
        """

    @abstractmethod
    def cancel(self, ticket: Ticket) -> None:
        """Stop a job; what it made is dropped."""

    @abstractmethod
    def close(self) -> None:
        """Stop what is under way and let the workers go; may be called again."""
