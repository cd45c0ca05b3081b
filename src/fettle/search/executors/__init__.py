"""Executors: who does the stages of a study. The folder is the registry.

An executor is asked for by name: `local`, `ray`, `ray://10.0.0.5:6379`, or with its knobs,
`ray(address="10.0.0.5:6379", tag="orin")`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fettle.core.errors import InputError, RecipeError
from fettle.core.progress import Reporter
from fettle.core.shelf import Shelf
from fettle.search.executors._executor import Crew, Executor, Unmanned
from fettle.search.executors._job import Done, Job, Lost, Need

if TYPE_CHECKING:
    from fettle.search.study import Setting
    from fettle.search.workshop import Workshop

__all__ = [
    "EXECUTORS",
    "Crew",
    "Done",
    "Executor",
    "Job",
    "Lost",
    "Need",
    "Unmanned",
    "executor",
    "opened",
    "workshop_of",
]

EXECUTORS = Shelf("executor", "fettle.search.executors", "Executor", "fettle.executors")


def executor(text: str) -> Executor:
    """Return the executor that `text` names: `local`, `ray`, `ray://ADDRESS`, `ray(tag="orin")`.

    Raises:
        UnknownName: there is no such executor.
        KnobError: a knob that it doesn't have, or out of bounds.
        InputError: it doesn't parse, or gives an address to one that has none.

    Example:
        >>> str(executor("ray://10.0.0.5:6379"))
        "ray(address='10.0.0.5:6379')"
    """
    name, scheme, address = text.strip().partition("://")
    if not scheme:
        return _sound(_called(text))
    if "address" not in [knob.name for knob in EXECUTORS.load(name).knobs()]:
        raise InputError(f"the executor `{name}` has no address, got `{text}`: give `{name}`")
    return _sound(EXECUTORS.make(name, address=address))


@contextmanager
def opened(setting: Setting, progress: Reporter) -> Iterator[Crew | None]:
    """Yield the crew of a study's executor; None where this process does it all."""
    crew = setting.executor.crew(progress.say) if setting.executor else None
    if crew is None:
        yield None
        return
    try:
        yield crew
    finally:
        crew.close()


def workshop_of(crew: Crew | None, setting: Setting, *shop: Any) -> Workshop:
    """Return a workshop of `shop`, the arguments of one, whose stages the crew does, if any.

    Raises:
        InputError: the model or the data can't be sent to other machines.
    """
    from fettle.search.workshop import Workshop

    if crew is None:
        return Workshop(*shop)
    from fettle.search.executors._remote import RemoteWorkshop

    return RemoteWorkshop(crew, setting.data, setting.kind, *shop)


def _called(text: str) -> Any:
    from fettle.core.recipe import parse_call

    try:
        return parse_call(text, EXECUTORS.make)
    except RecipeError:
        raise InputError(
            "`executor` expects `local`, `ray`, `ray://HOST:PORT`, or one with its knobs, such as"
            f" `ray(tag='orin')`, got `{text}`"
        ) from None


def _sound(made: Any) -> Executor:
    assert isinstance(made, Executor)
    return made
