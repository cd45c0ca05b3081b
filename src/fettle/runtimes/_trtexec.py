"""The command lines of NVIDIA's `trtexec` that build and time what `tensorrt` builds."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

Form = Literal["f32", "f16", "int8"]
_SHAPES = ("min", "opt", "max")


def trtexec_commands(
    model: Path,
    form: Form,
    shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]],
    workspace_mb: int = 4096,
) -> dict[str, str]:
    """Return the command for each version of TensorRT: "8.x", "10.x" and "11.x".

    In 8.x the precision is asked for by flags. From 10 on it is in the graph alone: give the file
    that `graph.half` wrote, or the int8 master.

    Args:
        model: the ONNX file.
        form: what its graph says: "f32", "f16" or "int8" (QuantizeLinear and DequantizeLinear).
        shapes: least, usual and largest shape of each input that has a free dimension.
        workspace_mb: MiB that layers may use while they run.
    """
    engine = str(model.with_suffix(".engine"))
    start = ["trtexec", f"--onnx={model}", f"--saveEngine={engine}"]
    profile = [f"--{which}Shapes={_spec(shapes, i)}" for i, which in enumerate(_SHAPES) if shapes]
    flags = {"f32": ["--noTF32"], "f16": ["--fp16"], "int8": ["--int8", "--fp16"]}[form]
    typed = ["--noTF32"] if form == "f32" else []
    timing = ["--useCudaGraph", "--noDataTransfers", "--useSpinWait", "--warmUp=200"]
    layers = ["--profilingVerbosity=detailed", "--dumpLayerInfo", "--separateProfileRun"]
    pool = f"--memPoolSize=workspace:{workspace_mb}"
    parts = {
        "8.x": [*start, *profile, *flags, f"--workspace={workspace_mb}", *timing, *layers],
        "10.x": [*start, *profile, "--stronglyTyped", *typed, pool, *timing, *layers],
        # graphs are launched and transfers left out unless it is told otherwise
        "11.x": [*start, *profile, *typed, pool, "--useSpinWait", "--warmUp=200", *layers],
    }
    return {version: shlex.join(words) for version, words in parts.items()}


def _spec(
    shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]], which: int
) -> str:
    """Return shapes as trtexec reads them: `x:1x3x224x224,y:1x128`."""
    return ",".join(f"{name}:{'x'.join(map(str, s[which]))}" for name, s in shapes.items())
