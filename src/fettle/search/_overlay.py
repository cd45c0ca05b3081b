"""A store over another: what is there is found, and what is written is written beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fettle.search._store import Stage, Store
from fettle.search.journal import Journal


class NotDone(Exception):
    """What follows depends on a stage that isn't there; its name is the message."""


class Overlay(Store):
    """A store that finds what another has, and writes beside it: the other is left as it is."""

    def __init__(self, below: Store, scratch: Path) -> None:
        super().__init__(scratch, Journal(scratch / "journal.jsonl"))
        self.below, self.works = below, False

    def folder(self, key: str) -> Path:
        """Return where a stage is: there, or else here."""
        return self.below.folder(key) if self.below.has(key) else super().folder(key)

    def make(self, key: str, name: str, work: Callable[[Path], None]) -> tuple[Path, Stage]:
        """Return the folder of a stage that is there.

        Raises:
            NotDone: it is not, and no work is to be done.
        """
        if not self.works and not self.has(key):
            raise NotDone(name)
        return super().make(key, name, work)
