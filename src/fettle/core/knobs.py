"""Knobs: the one place where an option is declared.

A plug-in is a frozen, keyword-only dataclass. Each field that is annotated with bounds and a
meaning is a knob:

    ratio: Annotated[float, Range(0, 0.95), "fraction of channels removed"] = 0.5

The same line is the Python argument, the recipe's syntax, the documentation and the search space.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from dataclasses import dataclass
from typing import Any

from fettle.core.errors import KnobError

Value = bool | int | float | str
_SCALARS = (bool, int, float, str)


@dataclass(frozen=True)
class Range:
    """Closed interval of a number; `log` says that a search should step in ratios."""

    low: float
    high: float
    unit: str = ""
    log: bool = False

    def refuse(self, value: Value) -> str | None:
        """Return what was expected when `value` is outside, else None."""
        number = float(value)
        inside = math.isfinite(number) and self.low <= number <= self.high
        return None if inside else f"a number from {self.low:g} to {self.high:g}"

    def __str__(self) -> str:
        return f"{self.low:g} … {self.high:g}" + (f" {self.unit}" if self.unit else "")


@dataclass(frozen=True, init=False)
class Choice:
    """One of a few values."""

    options: tuple[Value, ...]

    def __init__(self, *options: Value) -> None:
        object.__setattr__(self, "options", options)

    def refuse(self, value: Value) -> str | None:
        """Return what was expected when `value` is none of the options, else None."""
        if value in self.options:
            return None
        return "one of " + ", ".join(repr(option) for option in self.options)

    def __str__(self) -> str:
        return " | ".join(repr(option) for option in self.options)


@dataclass(frozen=True)
class Text:
    """Any text of a known form, such as a model's name; no search varies it."""

    form: str

    def refuse(self, value: Value) -> str | None:
        """Any text will do here; whoever uses it checks its form."""
        del value
        return None

    def __str__(self) -> str:
        return self.form


Bounds = Range | Choice | Text


@dataclass(frozen=True)
class Knob:
    """One declared option of a plug-in."""

    name: str
    type: type
    default: Value
    bounds: Bounds | None
    meaning: str

    def check(self, owner: str, value: Any) -> Value:
        """Return `value` in the knob's own type.

        Raises:
            KnobError: the value has another type, or is out of bounds.
        """
        coerced = _coerce(value, self.type)
        if coerced is None:
            raise KnobError(
                f"`{owner}({self.name}=…)` expects {self.type.__name__}, got {value!r}"
                f" ({type(value).__name__}); its default is {self.default!r}"
            )
        refused = self.bounds.refuse(coerced) if self.bounds else None
        if refused:
            raise KnobError(
                f"`{owner}({self.name}=…)` expects {refused} ({self.meaning}), got {value!r}"
            )
        return coerced


def knobs_of(cls: type) -> tuple[Knob, ...]:
    """Return the knobs that the dataclass `cls` declares, in order."""
    hints = typing.get_type_hints(cls, include_extras=True)
    found = []
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        if typing.get_origin(hint) is not typing.Annotated:
            continue
        base, *extras = typing.get_args(hint)
        bounds = next((e for e in extras if isinstance(e, Range | Choice | Text)), None)
        meaning = next((e for e in extras if isinstance(e, str)), "")
        found.append(Knob(field.name, base, _default(cls, field), bounds, meaning))
    return tuple(found)


def _default(cls: type, field: dataclasses.Field[Any]) -> Value:
    if field.default is dataclasses.MISSING:
        raise TypeError(f"{cls.__name__}.{field.name} has no default")  # our own mistake
    return field.default  # type: ignore[no-any-return]


def _coerce(value: Any, kind: type) -> Value | None:
    if not isinstance(value, _SCALARS):
        return None
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, bool):
        return None
    return value if isinstance(value, kind) else None
