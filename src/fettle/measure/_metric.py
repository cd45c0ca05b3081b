"""The seam of a metric, and the artifact that it measures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fettle.core.measurement import Measurement
from fettle.core.plugin import Plugin
from fettle.runtimes import Runtime

if TYPE_CHECKING:
    from fettle.tasks._task import Task


@dataclass(frozen=True)
class Artifact:
    """What is measured: an ONNX file or a bundle's folder, and how it is to be run.

    `lowering` names the graph passes that the runtime applies to its copy.
    """

    path: Path
    runtime: Runtime | None = None
    lowering: tuple[str, ...] = ()
    task: Task | None = None
    batch: int = 1


@dataclass(frozen=True, kw_only=True)
class Metric(Plugin, ABC):
    """Something that can be measured of an artifact."""

    @abstractmethod
    def measure(self, subject: Artifact) -> Measurement:
        """Return the value with its unit, interval and sample count."""
