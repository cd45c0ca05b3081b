"""Every stage is done in this process, one after the other: the default."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fettle.search.executors._executor import Crew, Executor


@dataclass(frozen=True, kw_only=True)
class Local(Executor):
    """Does everything in the study's own process."""

    def crew(self, say: Callable[[str], None]) -> Crew | None:
        """Return None: nobody else is needed."""
        del say
        return None
