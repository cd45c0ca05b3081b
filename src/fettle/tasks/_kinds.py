"""Kinds of task: one a file of this folder, and which of them suits what a source has read."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import cache
from pathlib import Path

from fettle.core.errors import UnknownName
from fettle.tasks._data import Data
from fettle.tasks._on_data import DataTask
from fettle.tasks._unlabelled import Unlabelled

AUTO = "auto"
_HERE = Path(__file__).parent


@cache
def kinds() -> tuple[str, ...]:
    """Return the names of all kinds of task, sorted."""
    found = pkgutil.iter_modules([str(_HERE)])
    return tuple(sorted(m.name for m in found if not m.ispkg and not m.name.startswith("_")))


def kind(name: str) -> type[DataTask]:
    """Return the kind called `name`.

    Raises:
        UnknownName: there is none.
    """
    if name not in kinds():
        raise UnknownName("task", name, [AUTO, *kinds()])
    module = importlib.import_module(f"fettle.tasks.{name}")
    classes = (cls for _, cls in inspect.getmembers(module, inspect.isclass))
    return next(c for c in classes if c.__module__ == module.__name__ and issubclass(c, DataTask))


def kind_for(data: Data) -> type[DataTask]:
    """Return the kind that suits the labels.

    Classes: classification. Values: regression; of pairs of texts, embedding. None: what suits the
    original's outputs, agreement or fidelity.
    """
    if not data.labelled:
        return Unlabelled
    if data.classes:
        return kind("classification")
    return kind("embedding" if data.pairs else "regression")
