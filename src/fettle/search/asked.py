"""`fettle.optimize`: the search as one call, with the names that the command line has.

Example:
    found = fettle.optimize("cifar:resnet20", "cifar10:DIR", weights="resnet20.safetensors",
                            max_drop=0.01, batch=64, time_limit="20m", out="runs/resnet20")
    print(found)                    # the table
    found.verdict, found.best       # "pass", the folder of the bundle as a Bundle
    print(found.explanation)
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fettle import report, tasks
from fettle.core.bundle import Bundle
from fettle.core.context import Context
from fettle.core.duration import seconds_of
from fettle.core.errors import InputError
from fettle.core.progress import Reporter, Silent
from fettle.core.targets import targets
from fettle.core.verdict import Budget
from fettle.search import optimize as driver
from fettle.search.executors import executor as _executor
from fettle.search.optimize import Wish
from fettle.search.study import Setting
from fettle.search.workshop import Source
from fettle.tasks import Task

if TYPE_CHECKING:
    from torch import nn

    Model = str | Path | Source | nn.Module

OUT = "optimized"
RESULT = "result.json"


@dataclass(frozen=True)
class Optimized:
    """What a search came to: the result of the contract, and the folder where everything is."""

    result: Mapping[str, Any]
    out: Path

    @property
    def verdict(self) -> str:
        """`pass`, `fail` or `inconclusive`."""
        return str(self.result["verdict"])

    @property
    def passed(self) -> bool:
        """Whether the best artifact was proven inside the budget."""
        return self.verdict == "pass"

    @property
    def best(self) -> Bundle:
        """The best artifact, proven or not, its hashes checked anew."""
        return Bundle.open(self.out / "best")

    @property
    def frontier(self) -> list[dict[str, Any]]:
        """The rows that no other beats in both latency and quality, fastest first."""
        return list(self.result["frontier"])

    @property
    def explanation(self) -> str:
        """Why the winner won, as text."""
        return report.explanation(self.result)

    def __str__(self) -> str:
        return report.table(self.result)

    def _repr_html_(self) -> str:
        """Return the report for a notebook, in a frame that runs nothing of its host's."""
        page = html.escape(report.render(self.result), quote=True)
        return (
            f'<iframe srcdoc="{page}" sandbox="allow-scripts" width="100%" height="720"'
            ' style="border:0"></iframe>'
        )


@dataclass(frozen=True)
class Asked:
    """Everything that a search needs, made of what a person gave."""

    source: Source
    task: Task
    out: Path
    setting: Setting
    wish: Wish
    context: Context
    teachers: Sequence[Source]

    def run(self) -> Optimized:
        """Search, continuing what the folder holds."""
        result = driver.optimize(
            self.source, self.task, self.out, self.setting, self.wish,
            context=self.context, teacher=list(self.teachers) or None,
        )  # fmt: skip
        return Optimized(result, self.out)

    def foresee(self) -> dict[str, Any]:
        """Return what would be tried, and what it would cost."""
        from fettle.search.dry_run import foresee

        return foresee(
            self.source, self.task, self.out, self.setting, self.wish,
            context=self.context, teacher=list(self.teachers) or None,
        )  # fmt: skip


def asked(  # noqa: PLR0913 - the verb's own options, by name
    model: Model,
    data: Task | str,
    *,
    weights: str | Path | None = None,
    task: str = tasks.AUTO,
    target: str = "cpu",
    max_drop: float = 0.01,
    confidence: float = 0.95,
    batch: int = 1,
    threads: int = 0,
    time_limit: str | float | None = None,
    objective: str = "latency",
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    teacher: Model | Sequence[Model] = (),
    teacher_weights: Sequence[str | Path | None] = (),
    seconds: float = 20.0,
    seed: int = 0,
    executor: str = "local",
    out: str | Path = OUT,
    progress: Reporter | None = None,
    command: str = "",
) -> Asked:
    """Return a search that is ready to run; the arguments are those of `optimize`.

    Raises:
        FettleError: an argument is wrong, or something that it needs is not here.
    """
    setting = Setting(
        budget=Budget(max_drop=max_drop, confidence=confidence),
        target=targets(target),
        batch=batch,
        threads=threads,
        seconds=seconds,
        command=command,
        data=data if isinstance(data, str) else "",
        kind=task,
        executor=_executor(executor),
    )
    limit = None if time_limit is None else seconds_of(time_limit)
    wish = Wish(limit, objective, _names(only), _names(skip))
    folder = _folder(Path(out))
    wanted = tasks.load(data, seed=seed, task=task) if isinstance(data, str) else data
    setting = replace(setting, budget=replace(setting.budget, metric=wanted.metric))
    return Asked(
        source=_source(model, weights),
        task=wanted,
        out=folder,
        setting=setting,
        wish=wish,
        context=Context(seed=seed, progress=progress or Silent()),
        teachers=_teachers(teacher, teacher_weights),
    )


def optimize(model: Model, data: Task | str, **options: Any) -> Optimized:
    """Search for the fastest artifact that can be proven inside an accuracy budget.

    It continues what the folder `out` holds, so the same call after an interrupt repeats nothing.

    Args:
        model: as `--model` names it, or a live torch module, or an ONNX file's path.
        data: as `--data` names it, or a task.
        **options: the command line's, by the same names and with the same defaults: `weights`,
            `task`, `target`, `max_drop`, `confidence`, `batch`, `threads`, `time_limit` (`"20m"`,
            or seconds), `objective`, `only`, `skip`, `teacher`, `teacher_weights`, `seconds`,
            `seed`, `executor`, `out`; and `progress`, a reporter such as
            `fettle.core.progress.Lines()`.

    Returns:
        The result, its verdict, its frontier, and the best artifact as a bundle.

    Raises:
        FettleError: an argument is wrong, or something that it needs is not here; nothing that
            was finished before is lost.
    """
    return asked(model, data, **options).run()


def _source(model: Model, weights: str | Path | None = None) -> Source:
    own = None if weights is None or str(weights) == "" else str(weights)
    if isinstance(model, Source):
        return model
    if isinstance(model, str | Path):
        return Source(str(model), own)
    from fettle.models import keep_live

    if own:
        raise InputError("`weights` expects a model by its name; a live module brings its own")
    return Source(keep_live(model))


def _teachers(given: Model | Sequence[Model], weights: Sequence[str | Path | None]) -> list[Source]:
    """Return the teachers, each with its weights.

    Raises:
        InputError: weights that belong to no teacher.
    """
    models: list[Any] = list(given) if isinstance(given, list | tuple) else [given]
    if weights and not models:
        raise InputError("`teacher_weights` expects `teacher`, the model that they belong to")
    if weights and len(weights) != len(models):
        raise InputError(
            f"`teacher_weights` is expected once for each of the {len(models)} teachers, in their"
            f" order, got {len(weights)}; give '' for one that brings its own"
        )
    paired = zip(models, weights or [None] * len(models), strict=True)
    return [_source(model, own) for model, own in paired]


def _names(given: Sequence[str]) -> tuple[str, ...]:
    """Return shelves or names; one text is one of them."""
    return (given,) if isinstance(given, str) else tuple(given)


def _folder(out: Path) -> Path:
    if out.exists() and not out.is_dir():
        raise InputError(f"`--out` expects a folder, and {out} is a file: choose another name")
    return out
