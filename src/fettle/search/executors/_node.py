"""The worker's side: does one job in a folder of its own, with what was sent along.

A node builds the study's workshop anew from what the order says of it, and looks after its keys:
what it makes has the key that was asked for, or it is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from fettle import tasks
from fettle.core.arrays import SPLITS
from fettle.core.context import Context
from fettle.core.errors import DataError, InputError
from fettle.core.files import replacing_folder
from fettle.core.progress import Silent
from fettle.core.recipe import Recipe, parse_step
from fettle.search._original import answers_in
from fettle.search._store import Store
from fettle.search.executors._job import RECORD, Done, Order, Parcel, pack, unpack
from fettle.search.journal import Journal
from fettle.search.workshop import Source, Workshop
from fettle.tasks import Task

_KEPT_SHOPS = 2  # the task before and after its original answered


@dataclass(frozen=True)
class Delivery:
    """A need of a job as it reaches a node: `fetch` brings the files, if they aren't there yet."""

    name: str
    whole: bool
    fetch: Callable[[], Parcel]


class Heard(Silent):
    """Keeps the lines that are said, for the driver to say."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        """Keep the line."""
        self.lines.append(message)


@dataclass(frozen=True)
class _SentSource(Source):
    """A source whose files lie in another place here; it goes by the name that it had there."""

    told: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def title(self) -> str:
        """What people and records call it."""
        return str(self.told["spec"])

    def identity(self) -> dict[str, Any]:
        """Return what distinguishes it, as where it came from."""
        return {name: self.told[name] for name in ("spec", "files", "plan")}


def perform(order: Order, root: Path, needs: Sequence[Delivery], files: Parcel) -> Done:
    """Do what an order says, keeping what was delivered and made under `root`.

    Raises:
        Exception: what the work raised.
    """
    from fettle.search.executors._node_measuring import MEASURES, measured

    heard, store = Heard(), Store(root, Journal(root / "journal.jsonl"))
    for need in needs:
        _take_in(need, store)
    shop = _workshop(json.dumps(order["shop"], sort_keys=True), root)
    shop.context = replace(shop.context, progress=heard)
    if order["do"] in MEASURES:
        return replace(measured(shop, order, files, heard), said=tuple(heard.lines))
    _STAGES[order["do"]](shop, order["with"])
    folder = store.folder(order["wants"])
    if not store.has(order["wants"]):
        raise InputError(
            f"this node made something else than `{order['wants']}`, the stage that was asked for:"
            " give it the same versions of everything, and the same data"
        )
    return Done(pack(folder), said=tuple(heard.lines))


def _take_in(need: Delivery, store: Store) -> None:
    """Put what was delivered into the store, unless it is there."""
    folder = store.folder(need.name)
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if found - {RECORD} or (found and not need.whole):
        return
    parcel = need.fetch()
    if parcel:
        with replacing_folder(folder) as temporary:
            unpack(parcel, temporary)


def _make(shop: Workshop, asked: Order) -> None:
    shop.make(Recipe.parse(asked["recipe"]))


def _module(shop: Workshop, asked: Order) -> None:
    shop.module([parse_step(step) for step in asked["steps"]])


def _train(shop: Workshop, asked: Order) -> None:
    if asked["who"] == "source":
        shop.module()
        return
    shop._load(shop.teachers[int(asked["who"].removeprefix("teacher "))])


_STAGES: dict[str, Callable[[Workshop, Order], None]] = {
    "make": _make,
    "module": _module,
    "train": _train,
}


@lru_cache(maxsize=_KEPT_SHOPS)
def _workshop(described: str, root: Path) -> Workshop:
    """Return the workshop that an order describes; built once in each process.

    Raises:
        InputError: other versions are installed here.
        DataError: the data are not those of the study.
    """
    shop = json.loads(described)
    store = Store(root, Journal(root / "journal.jsonl"))
    task = tasks.load(shop["data"], seed=shop["seed"], task=shop["kind"])
    _check_data(task, shop["prints"])
    named = {name: _source(name, told, store) for name, told in shop["sources"].items()}
    teachers = [source for name, source in named.items() if name != "source"]
    made = Workshop(named["source"], task, store, Context(seed=shop["seed"]), teachers)
    check_versions(made._versions, shop["versions"])
    if shop["answers"]:
        found = {split: answers_in(store.folder(key)) for split, key in shop["answers"].items()}
        made.task = task.answered(found)
    return made


def _source(name: str, told: dict[str, Any], store: Store) -> Source:
    """Return a source whose files are those that were delivered."""
    from fettle.train import FitPlan

    spec, weights, plan = told["spec"], told["weights"], told["plan"]
    folder = store.folder(name)
    if folder.is_dir():
        spec = _placed(spec, told["main"], folder)
    if weights:
        weights = str(store.folder(f"{name} weights") / Path(weights).name)
    return _SentSource(spec, weights, None if plan is None else FitPlan(**plan), told)


def _placed(spec: str, main: str, folder: Path) -> str:
    """Return the name of a model whose files lie in `folder` now."""
    if not main:
        return f"hf:{folder}" if spec.startswith("hf:") else str(folder)
    function = re.search(r":\w+$", spec)
    return f"{folder / main}{function[0] if function else ''}"


def _check_data(task: Task, prints: dict[str, str]) -> None:
    found = {split: task.fingerprint(split) for split in SPLITS}
    if found != prints:
        differing = [split for split in SPLITS if found[split] != prints[split]]
        raise DataError(
            f"the data's splits {differing} differ on this node from those of the study: give it"
            " the same files under the same name"
        )


def check_versions(found: dict[str, str], expected: dict[str, str]) -> None:
    """Refuse to work with other libraries than the study's.

    Raises:
        InputError: the packages that differ.
    """
    names = {n for n in {*found, *expected} if found.get(n) != expected.get(n)}
    if names:
        said = ", ".join(
            f"{n} {found.get(n, 'missing')} for {expected.get(n, 'none')}" for n in sorted(names)
        )
        raise InputError(f"this node has {said}: install what the study's own machine has")
