"""Applying the named lowering passes to a copy of the master, in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fettle.core.errors import ModelError
from fettle.core.recipe import parse_step

if TYPE_CHECKING:
    import onnx_ir as ir


def lowered(model: Path, lowering: Sequence[str]) -> Path | bytes:
    """Return `model` itself when nothing is to be lowered, else the bytes of the lowered graph.

    Each step of `lowering` is a pass with its knobs: `graph.lower_float(nodes='a,b')`.

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
    return ir.to_proto(graph).SerializeToString()  # type: ignore[no-any-return]


def _load(path: Path) -> ir.Model:
    import onnx_ir as ir

    try:
        # bytes have no folder in which an engine could find weights that lie beside the file
        return ir.external_data.load_to_model(ir.load(path))
    except Exception as error:  # protobuf's errors and onnx_ir's have no base in common
        raise ModelError(f"{path} is no sound ONNX model ({error}); export it anew") from error
