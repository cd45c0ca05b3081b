"""`path/file.py:function` and `package.module:function`: functions of the user's own."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from fettle.core.errors import InputError


def find_function(spec: str, error: type[InputError]) -> Callable[..., Any]:
    """Return the function that `spec` names; what goes wrong is raised as an `error`.

    Raises:
        InputError: there is no such file, module or function, or it can't be loaded.
    """
    place, _, name = spec.rpartition(":")
    if not place or not name:
        raise error(f"expected `path/file.py:function` or `package.module:function`, got `{spec}`")
    module = _from_file(place, error) if place.endswith(".py") else _from_path(place, error)
    function = getattr(module, name, None)
    if not callable(function):
        has = sorted(n for n, v in vars(module).items() if callable(v) and not n.startswith("_"))
        raise error(f"`{place}` has no function `{name}`; it has: {', '.join(has) or 'none'}")
    return function  # type: ignore[no-any-return]


def _from_file(place: str, error: type[InputError]) -> ModuleType:
    path = Path(place)
    found = importlib.util.spec_from_file_location(f"fettle_user_{path.stem}", path)
    if not path.is_file() or found is None or found.loader is None:
        raise error(f"`{place}` is expected to be a Python file, but there is none")
    module = importlib.util.module_from_spec(found)
    try:
        found.loader.exec_module(module)
    except Exception as raised:
        raise error(f"`{place}` raised {type(raised).__name__}: {raised}; mend it") from raised
    return module


def _from_path(place: str, error: type[InputError]) -> ModuleType:
    try:
        return importlib.import_module(place)
    except Exception as raised:
        raise error(
            f"`{place}` can't be imported ({type(raised).__name__}: {raised}); give an installed"
            " module, or a path that ends with `.py`"
        ) from raised
