"""The seam of a metric, and the artifact that it measures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fettle.core.measurement import Measurement
from fettle.core.plugin import Plugin
from fettle.core.signature import Signature
from fettle.runtimes import Runtime

if TYPE_CHECKING:
    from fettle.tasks._task import Task


@dataclass(frozen=True)
class ModuleSource:
    """How another process makes a torch module again: what `models.load` is given.

    `shapes` are those of its inputs by name, without the batch.
    """

    name: str
    weights: str | None
    signature: Signature
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "name": self.name,
            "weights": self.weights,
            "inputs": [spec.to_json() for spec in self.signature.inputs],
            "classes": self.signature.classes,
            "vocabulary": self.signature.vocabulary,
        }


@dataclass(frozen=True)
class Artifact:
    """What is measured: an ONNX file or a bundle's folder, and how it is to be run.

    `lowering` names the graph passes that the runtime applies to its copy. A runtime that takes
    torch modules runs `module` in place of `path`.
    """

    path: Path
    runtime: Runtime | None = None
    lowering: tuple[str, ...] = ()
    task: Task | None = None
    batch: int = 1
    module: ModuleSource | None = None


@dataclass(frozen=True, kw_only=True)
class Metric(Plugin, ABC):
    """Something that can be measured of an artifact."""

    @abstractmethod
    def measure(self, subject: Artifact) -> Measurement:
        """Return the value with its unit, interval and sample count."""
