"""Applying the named lowering passes to a copy of the master, in memory."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fettle.core.errors import ModelError
from fettle.core.recipe import parse_step

if TYPE_CHECKING:
    import onnx_ir as ir

_LARGEST = (1 << 31) - (64 << 20)  # bytes of weights; protobuf ends at 2 GiB, with all the rest
_WEIGHTS = "weights.bin"


def lowered(model: Path, lowering: Sequence[str]) -> Path | bytes:
    """Return `model` itself when nothing is to be lowered, else the bytes of the lowered graph.

    Each step of `lowering` is a pass with its knobs: `graph.lower_float(nodes='a,b')`. A graph of
    more than 2 GiB, which no bytes can hold, comes as a file with its weights beside it; both are
    removed when nobody holds the path any more.

    Raises:
        ModelError: the file is missing, or no ONNX model.
        UnknownName: a pass that doesn't exist.
        RecipeError: a step that doesn't parse.
        KnobError: a knob that doesn't exist.
    """
    if not model.is_file():
        raise ModelError(f"the ONNX file {model} was expected and is not there")
    if not lowering:
        return model
    import onnx_ir as ir  # 36 MB that a session without a lowering doesn't need

    graph = _load(model)
    for name in lowering:
        graph = parse_step(name)(graph)  # type: ignore[operator]  # every pass is callable
    if _weight_bytes(graph) > _LARGEST:
        return _on_disk(graph)
    return ir.to_proto(graph).SerializeToString()  # type: ignore[no-any-return]


def write_lowered(model: Path, lowering: Sequence[str], target: Path) -> None:
    """Write the lowered graph to `target`; weights that lie beside `model` come along beside it.

    Raises:
        FettleError: as `lowered`.
    """
    import onnx
    from onnx.external_data_helper import uses_external_data

    graph = lowered(model, lowering)
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(graph, bytes):
        target.write_bytes(graph)
        return
    loaded = onnx.load(graph, load_external_data=False)
    if not any(uses_external_data(tensor) for tensor in loaded.graph.initializer):
        shutil.copyfile(graph, target)
        return
    location = f"{target.name}.data"
    onnx.save(onnx.load(graph), target, save_as_external_data=True, location=location)


@dataclass(frozen=True)
class Source:
    """What a session is made of: a master and the lowering that is applied to it."""

    model: Path
    lowering: tuple[str, ...] = ()

    def graph(self) -> Path | bytes:
        """Return the lowered graph, made anew: a session need not hold it all the time."""
        return lowered(self.model, self.lowering)


class _HeldPath(type(Path())):  # type: ignore[misc]  # the path class of this system
    """A path that can be watched, so that its folder goes with it."""


def _weight_bytes(graph: ir.Model) -> int:
    values = (value for inner in graph.graphs() for value in inner.initializers.values())
    return sum(value.const_value.nbytes for value in values if value.const_value is not None)


def _on_disk(graph: ir.Model) -> Path:
    import onnx_ir as ir

    folder = tempfile.mkdtemp(prefix="fettle-lowered-")
    path = _HeldPath(Path(folder) / "model.onnx")
    weakref.finalize(path, shutil.rmtree, folder, ignore_errors=True)
    ir.save(graph, Path(path), external_data=_WEIGHTS)
    return path


def _load(path: Path) -> ir.Model:
    import onnx_ir as ir

    try:
        # bytes have no folder in which an engine could find weights that lie beside the file
        return ir.external_data.load_to_model(ir.load(path))
    except Exception as error:  # protobuf's errors and onnx_ir's have no base in common
        raise ModelError(f"{path} is no sound ONNX model ({error}); export it anew") from error
