"""What may be changed about a task, whatever its data source and its kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from fettle.core.knobs import Choice, Range
from fettle.core.plugin import Plugin
from fettle.tasks._augment import KINDS


@dataclass(frozen=True, kw_only=True)
class Options(Plugin):
    """Augmentation, and how many examples each split takes."""

    plugin_name: ClassVar[str] = "task"

    augment: Annotated[
        str, Choice("auto", *KINDS), "augmentation in training; auto: what suits the source"
    ] = "auto"
    shift: Annotated[int, Range(-1, 64, "pixels"), "largest shift; -1: what suits the source"] = -1
    test: Annotated[int, Range(0, 1e9, "examples"), "to carve for the verdict; 0: by size"] = 0
    select: Annotated[int, Range(0, 1e9, "examples"), "to choose with; 0: by size"] = 0
    calibrate: Annotated[int, Range(0, 1e9, "examples"), "to set ranges with; 0: by size"] = 0
