"""What is found out about a search before any work is begun: wishes, data, teachers, the folder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fettle import models
from fettle.core.arrays import SPLITS, Split
from fettle.core.errors import DataError, InputError, KnobError, UnknownName
from fettle.core.shelf import PASSES, TECHNIQUES
from fettle.search.journal import Journal
from fettle.tasks import Task

if TYPE_CHECKING:
    from fettle.search.study import Setting
    from fettle.search.wish import Wish
    from fettle.search.workshop import Source, Workshop

_NEEDED: dict[Split, str] = {
    "calibrate": "to set ranges with",
    "select": "to choose with",
    "test": "for the verdict",
}


def check_wish(wish: Wish, on_graph: bool = False) -> None:
    """Refuse a limit that is no time, and shelves that aren't there.

    Args:
        wish: what is asked for.
        on_graph: whether the model is an ONNX file, on which techniques for torch can't work.

    Raises:
        KnobError: the time limit.
        UnknownName: no shelf and no plug-in is called so; the nearest are named.
        InputError: `only` and `skip` leave nothing.
    """
    if wish.seconds is not None and not 0 < wish.seconds < math.inf:
        raise KnobError(
            f"`time_limit` expects seconds above 0, or none to try everything, got {wish.seconds}"
        )
    plugins, passes = [*TECHNIQUES.names(), *PASSES.names()], PASSES.names()
    known = {*plugins, *(name.partition(".")[0] for name in plugins)}
    for name in (*wish.only, *wish.skip):
        if name.rstrip(".") not in known:
            raise UnknownName("shelf or plug-in", name, known)
    if wish.only and not any(wish.allows_name(name) for name in (passes if on_graph else plugins)):
        which = " of what works on an ONNX file, which is `graph`" if on_graph else ""
        raise InputError(
            f"`only` {_listed(wish.only)} without `skip` {_listed(wish.skip)} leaves nothing to"
            f" try{which}: name something else{', or give the torch model' if on_graph else ''}"
        )


def check_data(task: Task) -> None:
    """Refuse data without examples to choose with or to prove on, or with the same ones for both.

    Raises:
        DataError: as the message says, and how to get such a split.
    """
    for split, purpose in _NEEDED.items():
        if not task.size(split):
            raise DataError(
                f"the data has no examples left in `{split}`, which a search needs {purpose}: carve"
                f" some, as in `--data 'npz:FILE?{split}=300'`, give data with a test set of its"
                " own (`x_test` and `y_test`), or give more data"
            )
    same = [s for s in SPLITS if s != "test" and task.size(s) and _same(task, s, "test")]
    if same:
        raise DataError(
            f"`test` holds the same examples as `{same[0]}`, so a verdict would prove nothing:"
            " `test` expects examples that nothing else has seen"
        )


def check_teachers(workshop: Workshop) -> None:
    """Load every model that is to teach, beside the one at hand, and ask it once.

    Raises:
        FettleError: it can't be had, or doesn't answer as the task's models do.
    """
    for teacher in workshop.teachers:
        if teacher == workshop.source:
            continue
        from fettle.compress import check_sound

        signature, seed = workshop.task.signature, workshop.context.seed
        module = models.load(teacher.spec, weights=teacher.weights, signature=signature, seed=seed)
        check_sound("teacher", module, workshop.task)


def check_folder(out: Path, journal: Journal, source: Source, setting: Setting) -> None:
    """Refuse a folder that holds the study of another model or of other data.

    Raises:
        InputError: it does; its result and its bundle would be replaced.
    """
    starts = [event for event in journal.read() if event.get("event") == "start"]
    if not starts:
        return
    for what, mine in (("model", source.spec), ("data", setting.data)):
        theirs = starts[-1].get(what)
        if theirs and mine and theirs != mine:
            raise InputError(
                f"{out} holds a study of the {what} `{theirs}`, and `{mine}` would replace its"
                " result: give another `--out`, or remove that folder"
            )


def _same(task: Task, one: Split, other: Split) -> bool:
    return task.fingerprint(one) == task.fingerprint(other)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "anything"
