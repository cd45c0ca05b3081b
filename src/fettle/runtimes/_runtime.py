"""The seams of a runtime and its session."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np

from fettle.core.arrays import Arrays, TensorSpec
from fettle.core.errors import InputError
from fettle.core.knobs import Choice, Range
from fettle.core.plugin import Plugin

if TYPE_CHECKING:
    from torch import nn

_MOVES = {
    # ONNX and onnxruntime
    *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Cast", "Constant"),
    *("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Shape"),
    *("ReorderInput", "ReorderOutput", "Slice", "Gather", "Concat", "Pad", "Expand"),
    *("Where", "Split", "Tile", "Range", "ConstantOfShape", "GatherND", "GatherElements"),
    *("ScatterND", "ScatterElements"),
    # OpenVINO
    *("Input", "Output", "Const", "Reorder", "FakeQuantize", "Convert", "StridedSlice"),
    *("Concatenation", "Broadcast", "ShapeOf", "Select", "ScatterUpdate", "ScatterNDUpdate"),
    *("ScatterElementsUpdate", "MemoryInput", "MemoryOutput"),
    "Embedding",  # torch
}
# of shapes, positions and masks; products of 8 bits are told as int8, whatever they sum in
_INDEXES = {"i16", "u16", "i32", "u32", "i64", "u64", "int16", "uint16", "uint32", "uint64",
            "boolean", "string"}  # fmt: skip


@dataclass(frozen=True)
class LayerPrecision:
    """What one layer of the running engine really computes in.

    `origins` names the nodes of the graph that the engine fused into it, where the engine tells.
    """

    name: str
    op: str
    precision: str
    shape: tuple[int, ...] = ()
    origins: tuple[str, ...] = ()

    @property
    def computes(self) -> bool:
        """Whether this is arithmetic: no change of type, layout or view, no shapes, no masks."""
        return self.op not in _MOVES and self.precision not in _INDEXES


@dataclass(frozen=True)
class LayerTime:
    """How long one layer of the running engine takes, in order of execution."""

    name: str
    op: str
    ms: float


class Session(ABC):
    """A model, loaded and ready to run; thread-safe where the engine is.

    `callers` says how many threads have to call `run` at once to keep the engine busy.
    """

    callers: int = 1
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @abstractmethod
    def run(self, inputs: Arrays) -> Arrays:
        """Return the outputs by name for inputs by name, batch first.

        Raises:
            InputError: an input is missing, unknown, or of another type or shape.
        """

    def layers(self) -> list[LayerPrecision]:
        """Return what each layer really runs in; empty when the engine doesn't tell."""
        return []

    def layer_times(self, inputs: Arrays, runs: int = 20) -> list[LayerTime]:
        """Return the median time of each layer over `runs`; empty when the engine doesn't tell."""
        del inputs, runs
        return []

    def device_times(self, inputs: Arrays, runs: int = 1000) -> list[float]:
        """Return milliseconds that each run takes on a device, by its events; empty on a CPU."""
        del inputs, runs
        return []

    @abstractmethod
    def close(self) -> None:
        """Give back what the session holds."""


def match_inputs(specs: Sequence[TensorSpec], inputs: Arrays) -> Arrays:
    """Return `inputs` under the names of `specs`; a model's only input may come under any name.

    Raises:
        InputError: an input is missing, unknown, or of another type or shape. Without this an
            engine may answer a missing input with what it got in an earlier call.
    """
    if len(specs) == len(inputs) == 1:
        inputs = {specs[0].name: next(iter(inputs.values()))}
    if len(inputs) != len(specs) or any(spec.name not in inputs for spec in specs):
        raise InputError(
            f"the inputs {[spec.name for spec in specs]} were expected, got {list(inputs)}"
        )
    for spec in specs:
        array = inputs[spec.name]
        if not isinstance(array, np.ndarray):
            raise InputError(
                f"input `{spec.name}` expects a numpy array, got {type(array).__name__}"
            )
        spec.check(array)
    return inputs


@dataclass(frozen=True, kw_only=True)
class Runtime(Plugin):
    """An engine that runs models.

    `takes` says what `build` accepts: the path of an ONNX file, or a live torch module. `runs_on`
    says where: "cpu" or "cuda"; what it is compared with should run there too.
    """

    takes = "onnx"
    runs_on = "cpu"

    threads: Annotated[int, Range(0, 1024), "threads to use; 0 uses all there are"] = 0
    precision: Annotated[
        str, Choice("f32", "bf16"), "what floating-point layers compute in, where the engine can"
    ] = "f32"

    def supports(self) -> str | None:
        """Return why this runtime can't be used here, with the mend, or None when it can."""
        return None

    @abstractmethod
    def build(self, model: Path | nn.Module, lowering: Sequence[str] = ()) -> Session:
        """Load a model, applying the named lowering passes to a copy of its graph first.

        Raises:
            MissingError: the engine is not installed.
            ModelError: the engine refuses the model; the message says why.
        """

    def add_to_bundle(self, folder: Path, lowering: Sequence[str] = ()) -> None:
        """Add files to the folder of a bundle before its manifest is written: usually none.

        What a session starts from sooner where the bundle is opened on a machine like this one;
        the manifest vouches for it, and nothing may depend on it. `folder` holds `model.onnx`, for
        which `lowering` was chosen.

        Raises:
            FettleError: the engine can't make what it wants to add.
        """
        del folder, lowering
