"""A workshop that can tell what each of its stages would take, as data: one job a stage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from fettle.core.arrays import SPLITS
from fettle.core.context import Context
from fettle.core.errors import InputError
from fettle.core.plugin import Plugin
from fettle.core.recipe import Recipe
from fettle.search._store import Store
from fettle.search.executors._job import RECORD, Job, Need, Order
from fettle.search.executors._transport import needs_of, source_json
from fettle.search.workshop import Source, Teachers, Workshop
from fettle.tasks import Task


class DescribedWorkshop(Workshop):
    """Describes its stages as jobs, in the order and under the keys in which it would make them.

    Args:
        data: the task's data by name, as each node can read it.
        kind: the kind of task, as `fettle.tasks.load` takes it.
        source: as the workshop's, like all that follow.
        task: the same task, loaded here.
        store: of this process.
        context: its seed goes to the nodes; its progress stays here.
        teacher: one source, several, or none.
    """

    def __init__(
        self,
        data: str,
        kind: str,
        source: Source,
        task: Task,
        store: Store,
        context: Context,
        teacher: Teachers = None,
    ) -> None:
        super().__init__(source, task, store, context, teacher)
        _check_sendable(data, task)
        self._source_keys: dict[tuple[Source, Task, str], str] = {}
        named = {"source": self.source, **{f"teacher {i}": t for i, t in enumerate(self.teachers)}}
        self._shop: Order = {
            "sources": {name: source_json(given) for name, given in named.items()},
            "data": data,
            "kind": kind,
            "prints": {split: task.fingerprint(split) for split in SPLITS},
            "seed": context.seed,
            "versions": self._versions,
        }
        self._files = [need for name, given in named.items() for need in needs_of(given, name)]

    def order(self, do: str, **values: Any) -> Order:
        """Return an order to a node that is to build this workshop first."""
        return {"shop": {**self._shop, "answers": dict(self.answers)}, "do": do, "with": values}

    def stages(self, recipe: Recipe) -> Iterator[Job]:
        """Yield the job of every stage of a recipe, in order."""
        if not self.source.is_onnx:
            yield from self.chain(recipe.techniques)
            yield self._export_job(recipe.techniques)
        needs, keys = self.artifact_needs(recipe), self._pass_keys(recipe)
        first = len(needs) - len(keys)  # of the needs that are outcomes of passes
        for i, (graph_pass, key) in enumerate(zip(recipe.passes, keys, strict=True)):
            upto = Recipe((*recipe.techniques, *recipe.passes[: i + 1]))
            order = self.order("make", recipe=str(upto)) | {"wants": key}
            yield Job(key, str(graph_pass), order, needs[: first + i])

    def chain(self, techniques: Sequence[Plugin]) -> Iterator[Job]:
        """Yield the jobs before the export: trainings, and techniques whose outcome is kept."""
        chain = tuple(techniques)
        yield from self._training("source", self.source)
        for end, technique in enumerate(chain, start=1):
            for i, teacher in enumerate(self._teachers_of(technique)):
                yield from self._training(f"teacher {i}", teacher)
            if not getattr(technique, "final", False):  # else its outcome is kept by the export
                yield self._technique(chain[:end])

    def artifact_needs(self, recipe: Recipe) -> tuple[Need, ...]:
        """Return what a node reads to find the artifact of a recipe."""
        exported = [] if self.source.is_onnx else [self._export_key(recipe.techniques)]
        keys = [*exported, *self._pass_keys(recipe)]
        return (*self.shop_needs(), *(self._need(key) for key in keys))

    def module_needs(self) -> tuple[Need, ...]:
        """Return what a node reads to build the untouched module."""
        trained = [self._source_key(self.source)] if self.source.plan else []
        return (*self.shop_needs(), *(self._need(key) for key in trained))

    def shop_needs(self) -> tuple[Need, ...]:
        """Return what a node reads to build this workshop."""
        return (*self._files, *(self._need(key) for key in self.answers.values()))

    def _training(self, who: str, source: Source) -> Iterator[Job]:
        if source.plan is not None:
            key = self._source_key(source)
            order = self.order("train", who=who) | {"wants": key}
            yield Job(key, f"train({source.spec})", order, self.shop_needs())

    def _technique(self, chain: tuple[Plugin, ...]) -> Job:
        key = self.key(chain)
        order = self.order("module", steps=[str(step) for step in chain]) | {"wants": key}
        return Job(key, str(chain[-1]), order, self._chain_needs(chain[:-1], chain[-1:]))

    def _export_job(self, techniques: tuple[Plugin, ...]) -> Job:
        key = self._export_key(techniques)
        order = self.order("make", recipe=str(Recipe(techniques))) | {"wants": key}
        final = tuple(step for step in techniques if getattr(step, "final", False))
        return Job(key, "export", order, self._chain_needs(techniques, final))

    def _chain_needs(
        self, before: tuple[Plugin, ...], following: tuple[Plugin, ...]
    ) -> tuple[Need, ...]:
        """Return the stages that `following` builds on; of those further back the records alone."""
        kept = self._kept_keys(before)
        now = [key for step in following for key in self._taught_keys(step)]
        earlier = [key for step in before for key in self._taught_keys(step)]
        whole = {*kept[-1:], *now}
        needs = {key: self._need(key, key in whole) for key in (*earlier, *kept, *now)}
        return (*self.shop_needs(), *needs.values())

    def _kept_keys(self, techniques: tuple[Plugin, ...]) -> list[str]:
        """Return the keys of the stages that lead to a module: its training, then techniques."""
        trained = [self._source_key(self.source)] if self.source.plan else []
        final = [getattr(step, "final", False) for step in techniques]
        chains = [techniques[:end] for end in range(1, len(techniques) + 1) if not final[end - 1]]
        return [*trained, *(self.key(chain) for chain in chains)]

    def _taught_keys(self, technique: Plugin) -> list[str]:
        """Return the keys of the trainings of a technique's teachers."""
        return [self._source_key(t) for t in self._teachers_of(technique) if t.plan is not None]

    def _export_key(self, techniques: tuple[Plugin, ...]) -> str:
        return self._key(self.key(techniques), "export")

    def _pass_keys(self, recipe: Recipe) -> list[str]:
        source = self._source_key(self.source)
        key = source if self.source.is_onnx else self._export_key(recipe.techniques)
        keys = []
        for graph_pass in recipe.passes:
            key = self._key(key, graph_pass.name(), graph_pass.values(), self._data())
            keys.append(key)
        return keys

    def _source_key(self, source: Source) -> str:
        """Return the key of a source, whose files are hashed once."""
        known = (source, self.task, str(self.task.signature))
        if known not in self._source_keys:
            self._source_keys[known] = super()._source_key(source)
        return self._source_keys[known]

    def _need(self, key: str, whole: bool = True) -> Need:
        return Need(key, self.store.folder(key).absolute(), None if whole else (RECORD,))


def _check_sendable(data: str, task: Task) -> None:
    """Refuse a task that is an object of this process alone.

    Raises:
        InputError: it is.
    """
    if not data:
        raise InputError(
            f"this {type(task).__name__} can't be sent to other machines: give `data` by its name,"
            " such as `cifar10:DIR` or `path/file.py:function`, that each node can read"
        )
