"""What a search would try, in order, and what that would cost; nothing is written to its folder."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fettle.core.context import Context
from fettle.core.recipe import Recipe
from fettle.search._beforehand import check_data, check_folder, check_teachers, check_wish
from fettle.search._costs import Costs, epoch_seconds
from fettle.search._overlay import Overlay
from fettle.search._store import Store
from fettle.search.journal import Journal
from fettle.search.optimize import Wish
from fettle.search.rehearsal import ASSUMED, Rehearsal
from fettle.search.standing import clock
from fettle.search.study import Setting
from fettle.search.workshop import Source, Teachers, Workshop
from fettle.tasks import Task


def foresee(
    source: Source,
    task: Task,
    out: Path,
    setting: Setting,
    wish: Wish,
    *,
    context: Context | None = None,
    teacher: Teachers = None,
) -> dict[str, Any]:
    """Return what a search in the folder `out` would try and cost; nothing is written there.

    The model is exported to a temporary folder if it wasn't yet, and a few training steps of it
    are timed.

    Raises:
        FettleError: the model or the data can't be used.
    """
    check_wish(wish, source.is_onnx)
    check_data(task)
    with _beside(out) as store:
        check_folder(out, store.below.journal, source, setting)
        taught_by = teacher or (None if source.is_onnx else source)
        workshop = Workshop(source, task, store, context or Context(), taught_by)
        workshop.check(Recipe())
        check_teachers(workshop)
        events = store.below.journal.read()
        costs = Costs(events, epoch_seconds(workshop))
        rows = Rehearsal(workshop, setting, out, wish, costs).foresee()
    return {
        "dry_run": True,
        "would": [row.to_json() for row in rows],
        "seconds": round(sum(row.seconds for row in rows), 1),
        "unknown": sorted({name for row in rows for name in row.unknown}),
        "there": sum(row.there for row in rows),
        "time_limit": wish.seconds,
        "epoch_seconds": costs.epoch,
        "assumed": ASSUMED,
    }


def forecast_text(found: Mapping[str, Any]) -> str:
    """Return what `foresee` found, as plain text."""
    lines = []
    for part, rows in itertools.groupby(found["would"], key=lambda row: row["part"]):
        lines += ["", part, *(_line(row) for row in rows)]
    tries = [row for row in found["would"] if row["kind"] != "unknown"]
    lines += [
        "",
        f"{len(tries)} tries at most, {found['there']} of which are done; about"
        f" {clock(found['seconds'])} to do",
    ]
    if found["unknown"]:
        lines.append(f"not known is what these take: {', '.join(found['unknown'])}")
    if found["epoch_seconds"]:
        lines.append(f"an epoch of training is taken for {found['epoch_seconds']:.1f} s at first")
    return "\n".join([*lines, found["assumed"]]).strip()


def _line(row: Mapping[str, Any]) -> str:
    if row["kind"] == "unknown":
        return f"            {row['what']}"
    cost = "done" if row["there"] else f"{clock(row['seconds'])}{' + ?' if row['unknown'] else ''}"
    name = f"sketch {row['what']}" if row["kind"] == "sketch" else row["what"]
    return f"  {cost:>9} {name}"


@contextmanager
def _beside(out: Path) -> Iterator[Overlay]:
    with tempfile.TemporaryDirectory(prefix="fettle-dry-run-") as scratch:
        yield Overlay(Store(out, Journal(out / "journal.jsonl")), Path(scratch))
