"""Progress of long work: a live bar on a terminal, plain lines elsewhere, always on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Bar(Protocol):
    """One piece of work under way."""

    def step(self, note: str = "", amount: int = 1) -> None:
        """Say that `amount` of the work is done; `note` is what a person would like to see."""


class Reporter(Protocol):
    """Where progress goes."""

    def say(self, message: str) -> None:
        """Show one line that stays."""

    def bar(self, title: str, total: int, done: int = 0) -> AbstractContextManager[Bar]:
        """Open a bar of `total` steps, of which `done` were made before."""


class Silent:
    """Shows nothing: the default of the library."""

    def say(self, message: str) -> None:
        """Drop the line."""

    @contextmanager
    def bar(self, title: str, total: int, done: int = 0) -> Iterator[Bar]:
        """Yield a bar that shows nothing."""
        del title, total, done
        yield _NoBar()


class _NoBar:
    def step(self, note: str = "", amount: int = 1) -> None:
        """Show nothing."""


class Lines:
    """Plain lines on stderr, one every few seconds: for logs and pipes."""

    def __init__(self, every_seconds: float = 5.0) -> None:
        self.every = every_seconds

    def say(self, message: str) -> None:
        """Print the line."""
        print(message, file=sys.stderr, flush=True)  # noqa: T201

    @contextmanager
    def bar(self, title: str, total: int, done: int = 0) -> Iterator[Bar]:
        """Yield a bar that prints a line now and then."""
        bar = _LineBar(self, title, total, done)
        yield bar
        bar.show()


class _LineBar:
    def __init__(self, lines: Lines, title: str, total: int, done: int) -> None:
        self.lines, self.title, self.total = lines, title, total
        self.done, self.first = done, done
        self.note, self.shown = "", -1
        self.started = self.last = time.monotonic()

    def step(self, note: str = "", amount: int = 1) -> None:
        """Count, and print a line when the last is long enough ago."""
        self.done, self.note = self.done + amount, note or self.note
        if time.monotonic() - self.last >= self.lines.every:
            self.show()

    def show(self) -> None:
        """Print where the work stands, unless that was printed already."""
        if self.shown == self.done:
            return
        self.shown, self.last = self.done, time.monotonic()
        spent = self.last - self.started
        made = max(self.done - self.first, 1)
        left = spent / made * (self.total - self.done)
        when = f"{left:.0f} s left" if self.done < self.total else f"{spent:.1f} s"
        self.lines.say(f"  {self.title}: {self.done}/{self.total} {self.note} ({when})")


class Live:
    """A live bar on a terminal."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)

    def say(self, message: str) -> None:
        """Print the line above the bars."""
        self.console.print(message, markup=False)

    @contextmanager
    def bar(self, title: str, total: int, done: int = 0) -> Iterator[Bar]:
        """Yield a live bar."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            yield _RichBar(progress, progress.add_task(title, total=total, completed=done, note=""))


class _RichBar:
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self.progress, self.task = progress, task

    def step(self, note: str = "", amount: int = 1) -> None:
        """Move the bar."""
        self.progress.advance(self.task, amount)
        if note:
            self.progress.update(self.task, note=note)


def reporter() -> Reporter:
    """Return a live reporter when stderr is a terminal, else plain lines."""
    return Live() if sys.stderr.isatty() else Lines()
