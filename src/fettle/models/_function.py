"""`path/file.py:function` and `package.module:function`: models of the user's own."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from fettle.core.errors import ModelError
from fettle.models._origin import Origin


def build(spec: str, origin: Origin) -> nn.Module:
    """Return what the function of `spec` returns.

    It is called with those of `classes`, `num_classes`, `in_channels` and `in_chans` that it has
    parameters for.

    Raises:
        ModelError: no such file or function, it raises, or returns something else.
    """
    function = _find(spec)
    values = {
        "classes": origin.classes,
        "num_classes": origin.classes,
        "in_channels": origin.in_channels,
        "in_chans": origin.in_channels,
    }
    accepted = inspect.signature(function).parameters
    given = {k: v for k, v in values.items() if k in accepted and v is not None}
    try:
        module = function(**given)
    except Exception as error:
        raise ModelError(f"`{spec}` raised {type(error).__name__}: {error}; mend it") from error
    if not isinstance(module, nn.Module):
        raise ModelError(
            f"`{spec}` is expected to return a torch.nn.Module, got {type(module).__name__}"
        )
    return module


def _find(spec: str) -> Callable[..., Any]:
    place, _, name = spec.rpartition(":")
    module = _from_file(place) if place.endswith(".py") else _from_path(place)
    function = getattr(module, name, None)
    if not callable(function):
        has = sorted(n for n, v in vars(module).items() if callable(v) and not n.startswith("_"))
        raise ModelError(f"`{place}` has no function `{name}`; it has: {', '.join(has) or 'none'}")
    return function  # type: ignore[no-any-return]


def _from_file(place: str) -> ModuleType:
    path = Path(place)
    if not path.is_file():
        raise ModelError(f"`{place}` is expected to be a Python file, but there is none")
    found = importlib.util.spec_from_file_location(f"fettle_model_{path.stem}", path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    try:
        found.loader.exec_module(module)
    except Exception as error:
        raise ModelError(f"`{place}` raised {type(error).__name__}: {error}; mend it") from error
    return module


def _from_path(place: str) -> ModuleType:
    try:
        return importlib.import_module(place)
    except Exception as error:
        raise ModelError(
            f"`{place}` can't be imported ({type(error).__name__}: {error}); give an installed"
            " module, or a path that ends with `.py`"
        ) from error
