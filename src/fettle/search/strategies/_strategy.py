"""The seam of a strategy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from fettle.search.optimize import Search


class Strategy(ABC):
    """Proposes candidates by `search.attempt`, and reads what became of earlier ones.

    `order` says when it is pursued: what costs seconds before what costs minutes. `title` is what
    a person reads when it begins. `instead` is what a dry run says in place of asking it, where
    what it tries can't be foreseen.
    """

    order: ClassVar[int]
    title: ClassVar[str]
    instead: ClassVar[str] = ""

    def applies(self, search: Search) -> bool:
        """Say whether the model, the data and the wish leave something for this strategy."""
        del search
        return True

    @abstractmethod
    def explore(self, search: Search) -> None:
        """Attempt candidates until there is nothing worth trying.

        Raises:
            OutOfTime: from `search.attempt`, to be let through.
        """
