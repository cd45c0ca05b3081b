"""From a line such as `npz:clips.npz` or `npz:clips.npz?test=300&layout=nchw` to a task."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from fettle.core.errors import KnobError, UnknownName
from fettle.core.knobs import Knob, Value
from fettle.core.shelf import SOURCES
from fettle.tasks._data import Data
from fettle.tasks._kinds import AUTO, kind, kind_for
from fettle.tasks._options import Options
from fettle.tasks._source import DataSource
from fettle.tasks._task import Task

_KNOBS = re.compile(r"\?(\w+=[^&?]*(?:&\w+=[^&?]*)*)$")
_SWITCH = {"true": True, "false": False}


def load(text: str, *, seed: int = 0, task: str = AUTO, **overrides: Any) -> Task:
    """Return the task that `text` describes.

    `digits`, `npz:FILE`, `cifar10:DIR`, `imagefolder:DIR`, `torchvision:CIFAR10`, `text:FILE.csv`,
    `tokens:128`, `rows:digits`, `path/to/file.py:function` or `package.module:function`.

    Knobs of the source or of the task may follow: `npz:FILE?test=300&layout=nchw`.

    Args:
        text: a data source, after a colon where it reads, after a question mark its knobs.
        seed: of the split.
        task: `classification`, `regression`, `embedding`, `agreement`, `fidelity`, or `auto`, by
            the labels: classes, values, values of pairs, and none of any kind, where the original
            model's outputs decide between the last two.
        **overrides: knobs of the source, or of the task (`Options`).

    Raises:
        UnknownName: no such source, or no such kind of task.
        KnobError: a knob that neither has, or out of bounds.
        DataError: the data is missing, truncated, of the wrong shape, or invalid.

    Example:
        >>> load("digits").signature.image
        (1, 8, 8)
    """
    text, written = _knobs_in(text)
    name, _ = _source_of(text)
    own = {knob.name: knob for knob in Options.knobs()}
    known = {knob.name: knob for knob in SOURCES.load(name).knobs() if knob.name != "where"}
    for key in (*written, *overrides):
        if key not in own | known:
            raise KnobError(
                f"`{name}` has no knob `{key}`; known: {', '.join(sorted(own | known))}"
            )
    values = {**_values(name, written, own | known), **overrides}
    options = Options(**{k: v for k, v in values.items() if k in own})
    wanted = None if task == AUTO else kind(task)
    data = read_source(text, **{k: v for k, v in values.items() if k in known})
    if isinstance(data, Task):
        return data
    return (wanted or kind_for(data))(data, seed=seed, options=options)


def read_source(text: str, **knobs: Any) -> Data | Task:
    """Return what the source that `text` describes reads.

    Raises:
        UnknownName: no such source.
        DataError: the data is missing, truncated, of the wrong shape, or invalid.
    """
    name, where = _source_of(text)
    return cast(DataSource, SOURCES.make(name, where=where, **knobs)).read()


def _knobs_in(text: str) -> tuple[str, dict[str, str]]:
    """Split off the knobs that are written behind a question mark; a file may be called so."""
    found, where = _KNOBS.search(text), text.partition(":")[2]
    if found is None or (where and Path(where).exists()):
        return text, {}
    pairs = [part.partition("=") for part in found[1].split("&")]
    return text[: found.start()], {key: value for key, _, value in pairs}


def _values(owner: str, written: Mapping[str, str], knobs: Mapping[str, Knob]) -> dict[str, Value]:
    """Return what is written, each in its knob's own type."""
    return {key: knobs[key].check(owner, _typed(text, knobs[key])) for key, text in written.items()}


def _typed(text: str, knob: Knob) -> Value:
    """Return the number or the switch that `text` writes; what it isn't is left to be refused."""
    try:
        return _SWITCH[text.lower()] if knob.type is bool else knob.type(text)
    except (KeyError, ValueError):
        return text


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
