"""The plug-in: a frozen, keyword-only dataclass whose fields are its knobs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from fettle.core.knobs import Knob, Value, knobs_of


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """Base of everything that stands on a shelf.

    Its name is where its module lies: `fettle.compress.prune.channels` is `prune.channels`.

    Raises:
        KnobError: on construction, when a knob is out of its bounds.
    """

    plugin_name: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for knob in self.knobs():
            value = knob.check(self.name(), getattr(self, knob.name))
            object.__setattr__(self, knob.name, value)

    @classmethod
    def name(cls) -> str:
        """Return the plug-in's name on its shelf."""
        return cls.__dict__.get("plugin_name") or cls.__name__

    @classmethod
    def knobs(cls) -> tuple[Knob, ...]:
        """Return the declared knobs, in order."""
        return knobs_of(cls)

    def values(self) -> dict[str, Value]:
        """Return every knob's value, defaults too: what a hash has to know."""
        return {knob.name: getattr(self, knob.name) for knob in self.knobs()}

    def but(self, **changes: Any) -> Self:
        """Return a copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def __str__(self) -> str:
        changed = [k for k in self.knobs() if getattr(self, k.name) != k.default]
        inside = ", ".join(f"{k.name}={getattr(self, k.name)!r}" for k in changed)
        return f"{self.name()}({inside})" if inside else self.name()
