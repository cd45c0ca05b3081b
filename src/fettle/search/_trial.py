"""A trial: one recipe's artifact on one runtime, and everything that is found out about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from fettle.core.recipe import Recipe
from fettle.runtimes import Runtime, Session
from fettle.search._store import Stage

if TYPE_CHECKING:
    from torch import nn


@dataclass
class Trial:
    """One recipe on one runtime.

    `key` identifies the artifact by content; `row` collects what is measured, `proof` what the
    test split says of the two trials that meet it.
    """

    name: str
    recipe: Recipe
    runtime: Runtime
    key: str
    model: Path | nn.Module
    precision: str
    stages: tuple[Stage, ...] = ()
    lowering: tuple[str, ...] = ()
    session: Session | None = None
    refused: str | None = None
    row: dict[str, Any] = field(default_factory=dict)
    proof: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """A name that no other trial of the study has."""
        return f"{self.key} @ {self.runtime}"

    @property
    def is_plain(self) -> bool:
        """Whether the model was left alone."""
        return not self.recipe.steps

    @property
    def is_fp32(self) -> bool:
        """Whether this is the untouched model in f32: a denominator."""
        return self.is_plain and self.precision == "f32"

    @property
    def identity(self) -> list[Any]:
        """What a cached measurement of this trial depends on."""
        return [self.key, self.runtime.name(), self.runtime.values(), list(self.lowering)]


def is_quantized(path: Path) -> bool:
    """Say whether an ONNX file holds quantized operators."""
    graph = onnx.load(path, load_external_data=False).graph
    return any("Quantize" in node.op_type or "Integer" in node.op_type for node in graph.node)


def name_of(recipe: Recipe, precision: str) -> str:
    """Return a short name for people, such as `INT8 QAT`."""
    kinds = {
        "distill": "distilled",
        "prune": "pruned",
        "quantize.aware": "INT8 QAT",
        "quantize.static": "INT8 PTQ",
        "graph.static_int8": "INT8 PTQ",
    }
    names = []
    for step in recipe.steps:
        kind = next((v for k, v in kinds.items() if step.name().startswith(k)), step.name())
        names.append(kind)
    if not names:
        return {"f32": "FP32", "bf16": "BF16"}.get(precision, precision)
    text = " + ".join(names)
    return text[0].upper() + text[1:]
