"""Progress of long work: a live view on a terminal, plain lines elsewhere, always on stderr."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live as View
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
    """A live view on a terminal: boards of how things stand, and below them the bars under way.

    It is drawn when something is reported, by whoever reports, at most every `every_seconds`; never
    by a thread of its own, whose waking would show in the timing of a model.
    """

    def __init__(self, every_seconds: float = 0.25) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.every, self._drawn = every_seconds, -math.inf
        self._boards: list[Callable[[], RenderableType]] = []
        self._view: View | None = None
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            auto_refresh=False,
        )

    def say(self, message: str) -> None:
        """Print the line above everything that is live."""
        self.console.print(message, markup=False)
        self.draw()

    @contextmanager
    def bar(self, title: str, total: int, done: int = 0) -> Iterator[Bar]:
        """Yield a live bar."""
        with self._shown():
            task = self._bars.add_task(title, total=total, completed=done, note="")
            try:
                self.draw()
                yield _LiveBar(self, self._bars, task)
                self.draw(at_once=True)
            finally:
                self._bars.remove_task(task)

    @contextmanager
    def board(self, draw: Callable[[], RenderableType]) -> Iterator[None]:
        """Show what `draw` returns above the bars, anew each time that something is reported."""
        self._boards.append(draw)
        try:
            with self._shown():
                yield
        finally:
            self._boards.remove(draw)

    def draw(self, at_once: bool = False) -> None:
        """Draw everything that is live, unless that was done just now."""
        now = time.monotonic()
        if self._view is not None and (at_once or now - self._drawn >= self.every):
            self._view.refresh()
            self._drawn = now

    @contextmanager
    def _shown(self) -> Iterator[None]:
        """Have one view for all boards and bars; the first opens it, and takes it along."""
        if self._view is not None:
            yield
            return
        with View(
            get_renderable=self._all,
            console=self.console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
        ) as view:
            self._view = view
            try:
                yield
            finally:
                self._view = None

    def _all(self) -> RenderableType:
        shown = [draw() for draw in self._boards]
        bars = [self._bars.get_renderable()] if self._bars.tasks else []
        return Group(*shown, *bars)


class _LiveBar:
    def __init__(self, live: Live, bars: Progress, task: TaskID) -> None:
        self.live, self.bars, self.task = live, bars, task

    def step(self, note: str = "", amount: int = 1) -> None:
        """Move the bar."""
        self.bars.advance(self.task, amount)
        if note:
            self.bars.update(self.task, note=note)
        self.live.draw()


def reporter() -> Reporter:
    """Return a live reporter when stderr is a terminal that can be drawn on, else plain lines."""
    drawable = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    return Live() if drawable else Lines()


@contextmanager
def board(where: Reporter, draw: Callable[[], RenderableType]) -> Iterator[None]:
    """Show a board where there is a live view; nothing elsewhere."""
    if isinstance(where, Live):
        with where.board(draw):
            yield
    else:
        yield
