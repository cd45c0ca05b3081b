"""Every technique beside its row of the guide's table, each proven on a test set of its own study.

python benchmarks/guide.py [digits] [rows] [cifar10]

`digits` trains all of it (minutes); `rows` is the LSTM; `cifar10` takes the pretrained ResNets of
the benchmark data and techniques that need little training.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _results import interval, record, table

from fettle import compress, tasks
from fettle.core.context import Context
from fettle.core.progress import reporter
from fettle.core.recipe import Recipe
from fettle.search.study import Setting
from fettle.search.workshop import Source
from fettle.train import FitPlan

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("FETTLE_DATA", ROOT.parent / "shared" / "data"))
_TEACHER = Source("cifar:resnet32", plan=FitPlan(epochs=30, lr=0.1))
_STUDENT = "distill.logits(student='cifar:resnet8', temperature=3.0, alpha=0.7, epochs=60, lr=0.1)"


@dataclass(frozen=True)
class Plan:
    """What is tried on one model: recipes by the guide's row."""

    source: Source
    data: str
    batch: int
    recipes: dict[str, str]
    teacher: Source | None = None
    guide: dict[str, str] = field(default_factory=dict)


_GUIDE = {
    "FP16": "50 %, 1.5× (GPU), < 0.1 pp",
    "INT8 PTQ": "25 %, 3–4×, 0.5–2 pp",
    "INT8 PTQ of the ONNX file": "25 %, 3–4×, 0.5–2 pp",
    "dynamic INT8": "25 %",
    "INT8 QAT": "25 %, 3–4×, < 0.5 pp",
    "pruning (30 %, unstructured)": "–",
    "pruning (70 %, in 10 steps)": "30 %, 2–3×, 1–3 pp",
    "pruning (20 % of channels)": "real speed",
    "pruning (70 % of the weights)": "30 %, 2–3×, 1–3 pp",
    "distillation": "20–50 %, 2–5×, 2–5 pp",
    "all combined": "10× and more, < 2 pp",
}


def plans() -> dict[str, Plan]:
    """Return the plans by name."""
    weights = str(DATA / "weights" / "cifar10_resnet56.safetensors")
    return {
        "digits": Plan(
            Source("cifar:resnet32", plan=FitPlan(epochs=30, lr=0.1)), "digits", 64,
            {
                "FP16": "graph.float16",
                "INT8 PTQ": "quantize.static",
                "INT8 PTQ of the ONNX file": "graph.static_int8",
                "INT8 QAT": "quantize.aware(epochs=5)",
                "pruning (30 %, unstructured)": "prune.magnitude(sparsity=0.3, epochs=0)",
                "pruning (70 %, in 10 steps)": "prune.gradual(sparsity=0.7, steps=10, epochs=5)",
                "pruning (20 % of channels)": "prune.channels(ratio=0.2, epochs=20)",
                "pruning (70 % of the weights)": "prune.channels(ratio=0.45, epochs=40)",
                "distillation": _STUDENT,
                "all combined": f"{_STUDENT} > prune.channels(ratio=0.25, epochs=30)"
                " > quantize.aware(epochs=10)",
            },
            _TEACHER,
        ),
        "rows": Plan(
            Source("rnn:lstm", plan=FitPlan(epochs=30, lr=0.003, optimizer="adamw")), "rows:digits",
            1, {"dynamic INT8": "graph.dynamic_int8"},
        ),
        "cifar10": Plan(
            Source("cifar:resnet56", weights), f"cifar10:{DATA / 'cifar10'}", 64,
            {
                "FP16": "graph.float16",
                "INT8 PTQ": "quantize.static",
                "INT8 PTQ of the ONNX file": "graph.static_int8",
                "pruning (30 %, unstructured)": "prune.magnitude(sparsity=0.3, epochs=0)",
            },
        ),
    }  # fmt: skip


def main() -> int:
    """Run the plans, write the table."""
    rows: list[list[str]] = []
    for name in sys.argv[1:] or plans():
        if name == "cifar10" and not (DATA / "cifar10").is_dir():
            print("cifar10 skipped: FETTLE_DATA names no folder with cifar10/", file=sys.stderr)
            continue
        rows += rows_of(name, plans()[name])
    head = ("on", "row", "the guide's", "recipe @ engine", "size, of FP32", "× best FP32 engine",
            "× torch eager", "drop, pp (n)", "verdict, 2 pp")  # fmt: skip
    record("guide", "The guide's table, row by row", table(head, rows))
    return 0


def rows_of(name: str, plan: Plan) -> list[list[str]]:
    """Return the rows of one model: each recipe is a study, the stages are shared."""
    task = tasks.load(plan.data)
    setting = Setting(batch=plan.batch, seconds=10, only_given=True)
    rows = []
    for row, recipe in plan.recipes.items():
        result = compress(
            plan.source, task, Recipe.parse(recipe), ROOT / "runs" / f"guide-{name}", setting,
            Context(progress=reporter()), plan.teacher if "distill" in recipe else None,
        )  # fmt: skip
        rows.append(cells(f"{plan.source.spec}, {name}, batch {plan.batch}", row, result))
    return rows


def cells(where: str, row: str, result: dict[str, Any]) -> list[str]:
    """Return one row of the table."""
    best, base = result["best"], result["baseline"]
    drop = {k: 100 * best["drop"][k] for k in ("value", "low", "high")}
    return [
        where,
        row,
        _GUIDE[row],
        f"`{best['recipe']}`",
        f"{best['size_bytes'] / base['size_bytes']:.0%}",
        interval(best["speedup"]["vs_best_fp32"]),
        interval(best["speedup"]["vs_torch_eager"]),
        f"{interval(drop)} ({best['drop']['n']})",
        result["verdict"],
    ]


if __name__ == "__main__":
    sys.exit(main())
