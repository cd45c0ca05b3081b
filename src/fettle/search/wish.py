"""What a search is asked for, beside the budget and the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fettle.core.recipe import Recipe


@dataclass(frozen=True)
class Wish:
    """How long to search, for what, and with which means.

    `seconds` limits the search (None: until nothing is left to try). `only` and `skip` name shelves
    or plug-ins (`prune`, `quantize.static`, `graph`); with `only`, the winner must be made by one
    of them.
    """

    seconds: float | None = None
    objective: str = "latency"
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()

    def allows(self, recipe: Recipe) -> bool:
        """Say whether every step of a recipe may be used."""
        return all(self.allows_name(step.name()) for step in recipe.steps)

    def allows_name(self, name: str) -> bool:
        """Say whether the plug-in `name` may be used."""
        return not _named(name, self.skip) and (not self.only or _named(name, self.only))


def _named(name: str, wanted: Sequence[str]) -> bool:
    """Say whether `name` is one of `wanted`, or stands on a shelf of that name."""
    return any(name == w or name.startswith(f"{w.rstrip('.')}.") for w in wanted)
