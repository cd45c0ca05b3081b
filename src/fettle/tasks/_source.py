"""The seam of a data source: where examples come from."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated

from fettle.core.errors import KnobError
from fettle.core.knobs import Text
from fettle.core.plugin import Plugin
from fettle.tasks._data import Data
from fettle.tasks._task import Task


@dataclass(frozen=True, kw_only=True)
class DataSource(Plugin):
    """Reads examples. In `npz:clips.npz` the source is `npz` and `where` is `clips.npz`."""

    where: Annotated[str, Text("a path or a name"), "what stands after the colon"] = ""

    @abstractmethod
    def read(self) -> Data | Task:
        """Return the data, or a task that is ready by itself.

        Raises:
            DataError: the data is missing, truncated, of the wrong shape, or invalid.
        """

    def _need_where(self, what: str) -> str:
        if not self.where:
            raise KnobError(f"`{self.name()}` expects {what} after a colon: `{self.name()}:…`")
        return self.where


def numbers(owner: str, knob: str, text: str) -> tuple[float, ...]:
    """Return the numbers of a knob such as `mean="0.5,0.5,0.5"`; empty text gives none."""
    try:
        return tuple(float(part) for part in text.split(",")) if text.strip() else ()
    except ValueError as error:
        raise KnobError(
            f"`{owner}({knob}=…)` expects numbers with commas between, like"
            f" '0.485,0.456,0.406', got {text!r}"
        ) from error
