"""From a line such as `npz:clips.npz` to a task."""

from __future__ import annotations

import importlib.util
from typing import Any, cast

from fettle.core.errors import KnobError, UnknownName
from fettle.core.shelf import SOURCES
from fettle.tasks._data import Data
from fettle.tasks._source import DataSource
from fettle.tasks._task import Task
from fettle.tasks.classification import Classification, Options


def load(text: str, *, seed: int = 0, **overrides: Any) -> Task:
    """Return the task that `text` describes.

    `digits`, `npz:FILE`, `cifar10:DIR`, `imagefolder:DIR`, `torchvision:CIFAR10`, `text:FILE.csv`,
    `tokens:128`, `rows:digits`, `path/to/file.py:function` or `package.module:function`.

    Args:
        text: a data source, and after a colon where it reads.
        seed: of the split.
        **overrides: knobs of the source, or of the task (`Options`).

    Raises:
        UnknownName: no such source.
        KnobError: a knob that neither has, or out of bounds.
        DataError: the data is missing, truncated, of the wrong shape, or invalid.

    Example:
        >>> load("digits").signature.image
        (1, 8, 8)
    """
    name, _ = _source_of(text)
    own = {knob.name for knob in Options.knobs()}
    known = {knob.name for knob in SOURCES.load(name).knobs()} - {"where"}
    for key in overrides:
        if key not in own | known:
            raise KnobError(
                f"`{name}` has no knob `{key}`; known: {', '.join(sorted(own | known))}"
            )
    options = Options(**{k: v for k, v in overrides.items() if k in own})
    mine = {k: v for k, v in overrides.items() if k in known}
    data = read_source(text, **mine)
    return data if isinstance(data, Task) else Classification(data, seed=seed, options=options)


def read_source(text: str, **knobs: Any) -> Data | Task:
    """Return what the source that `text` describes reads.

    Raises:
        UnknownName: no such source.
        DataError: the data is missing, truncated, of the wrong shape, or invalid.
    """
    name, where = _source_of(text)
    return cast(DataSource, SOURCES.make(name, where=where, **knobs)).read()


def _source_of(text: str) -> tuple[str, str]:
    name, _, where = text.strip().partition(":")
    if name in SOURCES.names():
        return name, where
    if where and _is_code(text.rpartition(":")[0]):
        return "function", text.strip()
    raise UnknownName("data source", name, SOURCES.names())


def _is_code(place: str) -> bool:
    if place.endswith(".py"):
        return True
    try:
        return importlib.util.find_spec(place) is not None
    except (ModuleNotFoundError, ValueError):
        return False
