"""A workshop whose stages are done by a crew: it asks for them, and keeps what comes back.

What is asked for is what the workshop in one process would do itself, under the same keys, so that
the store and the journal don't tell who did it. Both are written here alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fettle.core.plugin import Plugin
from fettle.core.progress import Reporter
from fettle.core.recipe import Recipe
from fettle.core.shelf import PASSES
from fettle.search._store import Store
from fettle.search.clock import OutOfTime, Watched
from fettle.search.executors._described import DescribedWorkshop
from fettle.search.executors._dispatch import Arrived, Dispatch
from fettle.search.executors._executor import Crew
from fettle.search.executors._job import Done, Job, unpack
from fettle.search.journal import Journal
from fettle.search.workshop import Made

if TYPE_CHECKING:
    from torch import nn

    from fettle.search._measuring import Measuring

_LOOK = 0.5  # seconds from one look at the clock to the next
_BEGINS = ("export: ", "train ")


class RemoteWorkshop(DescribedWorkshop):
    """Makes artifacts by asking a crew for their stages, one job a stage.

    `begin` asks for the stages of many recipes at once, as far as the crew has room for them.
    """

    def __init__(self, crew: Crew, *shop: Any) -> None:
        super().__init__(*shop)
        self.crew, self.dispatch = crew, Dispatch(crew, self._say)
        self._expected: list[Recipe] = []
        self._failed: dict[str, Exception] = {}
        self._new: set[str] = set()
        self._untold = _Untold(self.store.journal.path)

    def begin(self, recipes: Iterable[Recipe]) -> None:
        """Ask for the stages of these recipes, as far as there is room."""
        known = {recipe.steps for recipe in self._expected}
        self._expected += [r for r in recipes if r.steps not in known and self._is_sound(r)]
        self._go_ahead()

    def make(self, recipe: Recipe) -> Made:
        """Return the ONNX artifact of a recipe, every stage of it done by the crew.

        Raises:
            ModelError: a step can't work on this model.
        """
        self.check(recipe)
        stages = list(self.stages(recipe))
        self._have(stages)
        made = super().make(recipe)
        new = {job.name for job in stages if job.key in self._new}
        if "export" in new:  # which makes a final step too
            new |= {str(step) for step in recipe.techniques if getattr(step, "final", False)}
        self._new -= {job.key for job in stages}
        found = (replace(stage, cached=stage.name not in new) for stage in made.stages)
        return replace(made, stages=tuple(found))

    def module(self, techniques: Sequence[Plugin] = ()) -> nn.Module:
        """Return the torch module after `techniques`, whose kept stages the crew does."""
        self._have(list(self.chain(techniques)))
        return super().module(techniques)

    def measuring(self, batch: int, seconds: float, progress: Reporter) -> Measuring:
        """Return what measures on the crew's target."""
        from fettle.search.executors._remote_measuring import RemoteMeasuring

        return RemoteMeasuring(self, batch, seconds, progress)

    def do(self, job: Job, progress: Reporter) -> Done:
        """Have a job done that is no stage, and return what came of it.

        Raises:
            Exception: what the job raised.
        """
        with self._stopping():
            self.dispatch.start(job)
            while True:
                for arrived, outcome in self._collect():
                    if arrived.key == job.key:
                        return self._said(job, outcome)
                _look_at_the_clock(progress)

    def _have(self, stages: Sequence[Job]) -> None:
        """Have every stage done that is wanted and isn't there.

        Raises:
            Exception: what a stage raised.
        """
        job = self._first_missing(stages)
        try:
            if job is not None:
                self._wait_for(job, stages)
        finally:
            for stage in stages:
                self._untold.tell(stage.key, self.store.journal)

    def _wait_for(self, job: Job | None, stages: Sequence[Job]) -> None:
        """Have the stages done from `job` on."""
        progress = self.context.progress
        with self._stopping(), progress.bar(stages[-1].name, len(stages)) as bar:
            while job is not None:
                if job.key in self._failed:
                    raise self._failed.pop(job.key)
                self._start(job)
                for arrived, _ in self._collect():
                    bar.step(arrived.name, int(arrived.key == job.key))
                bar.step(amount=0)
                job = self._first_missing(stages)

    def _first_missing(self, stages: Sequence[Job]) -> Job | None:
        """Return the first stage to be done; one that is there spares those before it.

        Graph passes are no such ones: each reads what the one before it wrote.
        """
        chain = [job for job in stages if not job.name.startswith(PASSES.prefix)]
        there = [i for i, job in enumerate(chain) if self.store.has(job.key)]
        wanted = [*chain[max(there, default=-1) + 1 :], *stages[len(chain) :]]
        return next((job for job in wanted if not self.store.has(job.key)), None)

    def _go_ahead(self) -> None:
        """Begin what the expected recipes need next, while there is room."""
        for recipe in list(self._expected):
            if self.dispatch.is_full:
                return
            job = self._first_missing(list(self.stages(recipe)))
            if job is None or job.key in self._failed:
                self._expected.remove(recipe)
            else:
                self._start(job)

    def _is_sound(self, recipe: Recipe) -> bool:
        """Say whether a recipe can be begun; why it can't is said when it is asked for."""
        try:
            self.check(recipe)
        except Exception:  # strangers' steps may raise anything
            return False
        return True

    def _start(self, job: Job) -> None:
        if not self.dispatch.has(job.key):
            self._say(f"{job.name} on {self.crew.name}")
            self.dispatch.start(job)

    def _collect(self) -> list[Arrived]:
        """Keep the stages that arrived; return everything that did."""
        arrived = self.dispatch.collect(_LOOK)
        for job, outcome in arrived:
            if "wants" in job.order:
                self._keep(job, outcome)
        if arrived:
            self._go_ahead()
        return arrived

    def _keep(self, job: Job, outcome: Done | Exception) -> None:
        """Put a stage into the store, whole or not at all; of a failed one keep the error."""
        if isinstance(outcome, Exception):
            self._failed[job.key] = outcome
            return
        kept = Store(self.store.root, self._untold)
        kept.make(job.key, job.name, lambda folder: unpack(outcome.files, folder))
        self._new.add(job.key)
        self._said(job, outcome)

    def _said(self, job: Job, outcome: Done | Exception) -> Done:
        """Say what was said on the node, save for what was said here when it began."""
        if isinstance(outcome, Exception):
            raise outcome
        for line in outcome.said:
            if line != job.name and not line.startswith(_BEGINS):
                self._say(line)
        return outcome

    @contextmanager
    def _stopping(self) -> Iterator[None]:
        """Stop all jobs when the time is up, or a person interrupts."""
        try:
            yield
        except (OutOfTime, KeyboardInterrupt):
            self._expected.clear()
            self.dispatch.drop()
            self._untold.tell_all(self.store.journal)
            raise

    def _say(self, line: str) -> None:
        self.context.progress.say(line)


class _Untold(Journal):
    """Holds what arrived before it was asked for, so that the journal has the order of the search.

    Such a stage is in the store from the first; only its line waits.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._lines: dict[str, dict[str, Any]] = {}

    def write(self, event: str, **fields: Any) -> None:
        """Hold the line of a stage."""
        self._lines[fields["key"]] = {"event": event, **fields}

    def tell(self, key: str, journal: Journal) -> None:
        """Write the line of a stage, if there is one."""
        line = self._lines.pop(key, None)
        if line is not None:
            journal.write(**line)

    def tell_all(self, journal: Journal) -> None:
        """Write all lines, in the order in which they came."""
        for key in list(self._lines):
            self.tell(key, journal)


def _look_at_the_clock(progress: Reporter) -> None:
    if isinstance(progress, Watched):
        progress.clock.check()
