"""The guide's performance table, and which of its rows a recipe answers to."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fettle.report._record import Trial


@dataclass(frozen=True)
class GuideRow:
    """What the guide promises of a technique against FP32.

    The texts are the guide's own; the limits read them as numbers: `size` the largest share of
    the FP32 file, `speed` the smallest ratio, `drop` the largest loss as a fraction.
    """

    name: str
    size_text: str
    speed_text: str
    drop_text: str
    size: float | None
    speed: float
    drop: float


_ROWS = (
    GuideRow("FP16", "50 %", "1.5× (GPU)", "< 0.1 pp", 0.50, 1.5, 0.001),
    GuideRow("INT8 PTQ", "25 %", "3–4×", "0.5–2 pp", 0.25, 3.0, 0.02),
    GuideRow("INT8 QAT", "25 %", "3–4×", "< 0.5 pp", 0.25, 3.0, 0.005),
    GuideRow("pruning (70 %)", "30 %", "2–3×", "1–3 pp", 0.30, 2.0, 0.03),
    GuideRow("distillation", "20–50 %", "2–5×", "2–5 pp", 0.50, 2.0, 0.05),
    GuideRow("TensorRT INT8 (GPU)", "25 %", "5–10×", "< 1 pp", 0.25, 5.0, 0.01),
    GuideRow("all combined", "–", "10× and more", "< 2 pp", None, 10.0, 0.02),
)
GUIDE = {row.name: row for row in _ROWS}
_INT8_PASSES = ("graph.static_int8", "graph.dynamic_int8", "graph.weight_only")
_HALF = ("bf16", "f16", "fp16", "float16", "bfloat16")
_BY_KIND = {"prune": "pruning (70 %)", "distill": "distillation"}


def step_names(recipe: str) -> list[str]:
    """Return the plug-ins' names of a recipe line, without loading any of them."""
    bare = re.sub(r"'[^']*'|\"[^\"]*\"", "''", recipe).partition("@")[0]
    return [name for step in bare.split(">") if (name := step.partition("(")[0].strip())]


def guide_row(trial: Trial) -> GuideRow | None:
    """Return the row of the guide's table that a trial should be held against, if there is one."""
    names = step_names(trial.recipe)
    kinds = {_kind(name) for name in names} & {"prune", "distill", "quantize"}
    if len(kinds) > 1:
        return GUIDE["all combined"]
    if kinds == {"quantize"}:
        return _quantized(names, trial.runtime)
    if kinds:
        return GUIDE[_BY_KIND[kinds.pop()]]
    half = trial.precision in _HALF or {"graph.float16", "graph.half"} & set(names)
    return GUIDE["FP16"] if half else None


def _kind(name: str) -> str:
    return "quantize" if name in _INT8_PASSES else name.partition(".")[0]


def _quantized(names: list[str], runtime: str) -> GuideRow | None:
    used = {name for name in names if _kind(name) == "quantize"}
    if runtime.startswith("tensorrt") and used <= {
        *_INT8_PASSES,
        "quantize.static",
        "quantize.aware",
    }:
        return GUIDE["TensorRT INT8 (GPU)"]
    if used == {"quantize.aware"}:
        return GUIDE["INT8 QAT"]
    return GUIDE["INT8 PTQ"] if used <= {"quantize.static", "graph.static_int8"} else None
