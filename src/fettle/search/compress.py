"""One recipe, no search: make it, measure it beside the original, prove it, seal it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fettle.core.context import Context
from fettle.core.recipe import Recipe
from fettle.search._store import Store, sole_worker
from fettle.search.executors import opened, workshop_of
from fettle.search.journal import Journal
from fettle.search.study import Candidate, Setting, Study
from fettle.search.workshop import Source, Teachers
from fettle.tasks import Task


def study(
    source: Source,
    task: Task,
    candidates: Sequence[Candidate],
    out: Path,
    setting: Setting,
    context: Context | None = None,
    teacher: Teachers = None,
) -> dict[str, Any]:
    """Run a study of `candidates` in the folder `out`, continuing what is there already.

    `teacher` is one source, or several that teach as one.

    Returns:
        The result of the contract, also written to `out/result.json`; the winner is `out/best`.

    Raises:
        FettleError: as the message says; nothing that was finished before is lost.
    """
    context = context or Context()
    with sole_worker(out), opened(setting, context.progress) as crew:
        journal = Journal(out / "journal.jsonl")
        journal.write("start", command=setting.command, model=source.spec, data=setting.data)
        store = Store(out, journal)
        workshop = workshop_of(crew, setting, source, task, store, context, teacher)
        return Study(workshop, setting, out).run(candidates)


def compress(
    source: Source,
    task: Task,
    recipe: Recipe,
    out: Path,
    setting: Setting,
    context: Context | None = None,
    teacher: Teachers = None,
) -> dict[str, Any]:
    """Apply one recipe; the result and the bundle are about it, whatever the verdict."""
    return study(source, task, [Candidate(recipe)], out, setting, context, teacher)
