"""How values that came from outside are quoted: short, and in plain ASCII."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from typing import Any

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60
_SHORT.maxlist = _SHORT.maxtuple = 8
_SHORT.maxdict, _SHORT.maxlevel = 4, 2

_KINDS = {bool: "a boolean", int: "a number", float: "a number", str: "a string"}


def shown(value: Any) -> str:
    """Return `value` as it is quoted in a message, cut where it is long.

    Example:
        >>> shown([1] * 100)
        '[1, 1, 1, 1, 1, 1, 1, 1, ...]'
    """
    return _SHORT.repr(value).encode("ascii", "backslashreplace").decode("ascii")


def kind_of(value: Any) -> str:
    """Return what a JSON value is, with the value itself where that is short.

    Example:
        >>> kind_of(None), kind_of([1]), kind_of("x")
        ('null', 'an array', "a string ('x')")
    """
    if value is None:
        return "null"
    if isinstance(value, list | dict):
        return "an array" if isinstance(value, list) else "an object"
    return f"{_KINDS.get(type(value), 'a value')} ({shown(value)})"


def listed(names: Iterable[str]) -> str:
    """Return a model's own names in backticks; the first few of many."""
    some = list(names)
    quoted = ", ".join(f"`{name}`" for name in some[:8])
    return (quoted + (f" and {len(some) - 8} more" if len(some) > 8 else "")) or "none"
