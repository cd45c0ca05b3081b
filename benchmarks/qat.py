"""Static against trained quantization, without and with learned scales, beside the guide's row.

ResNet-20 with its pretrained weights on CIFAR-10, and a thin MobileNet on digits, where static
quantization loses more. Both are int8 on the same engine; the drop is proven on test images that
nothing else has seen.

    python benchmarks/qat.py [--epochs 3] [--only cifar10|digits]
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

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
THIN = f"{Path(__file__).resolve().parent / '_thin.py'}:thin_mobilenet"
GUIDE = ("guide, QAT", "–", "< 0.5", "25 %", "3–4", "–")


def main() -> int:
    """Quantize both networks in three ways and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=3, help="of quantization-aware training")
    parser.add_argument("--only", choices=("cifar10", "digits"))
    given = parser.parse_args()
    rows = []
    for name in ("cifar10", "digits"):
        if given.only in (None, name):
            rows += measured(name, given.epochs)
    head = ("network, technique", "top-1 % (test)", "drop, pp (one-sided 95 %)", "size",
            "× same engine's f32", "verdict, 1 pp")  # fmt: skip
    record("qat", "Static against trained quantization", table(head, [GUIDE, *rows]))
    return 0


def recipes(epochs: int) -> list[str]:
    """Return the three ways, as recipes."""
    trained = f"quantize.aware(epochs={epochs})"
    learned = f"quantize.aware(epochs={epochs}, scales='learned')"
    return ["quantize.static", trained, learned]


def measured(name: str, epochs: int) -> list[tuple[str, ...]]:
    """Return the rows of one network."""
    if name == "digits":
        task, source = tasks.load("digits"), Source(THIN, plan=FitPlan(epochs=30, lr=0.05))
    elif (DATA / "cifar10").is_dir():
        task = tasks.load(f"cifar10:{DATA / 'cifar10'}")
        weights = DATA / "weights" / "cifar10_resnet20.safetensors"
        source = Source("cifar:resnet20", str(weights))
    else:
        print("skipped: FETTLE_DATA names no folder with cifar10/ and weights/", file=sys.stderr)
        return []
    setting = Setting(target=("onnxruntime",), batch=64, seconds=30, only_given=True)
    rows = []
    for number, recipe in enumerate(recipes(epochs)):
        folder = ROOT / "runs" / f"bench-qat-{name}-{number}"
        result = compress(
            source, task, Recipe.parse(recipe), folder, setting, Context(progress=reporter())
        )
        rows.append(row_of(f"{name}, {recipe}", result))
    return rows


def row_of(title: str, result: dict) -> tuple[str, ...]:
    """Return one row of the table."""
    best, plain = result["best"], result["baseline"]
    drop, metric = (
        {k: 100 * best[part][k] for k in ("value", "low", "high")} for part in ("drop", "metric")
    )
    return (
        title,
        interval(metric),
        interval(drop),
        f"{best['size_bytes'] / plain['size_bytes']:.0%}",
        interval(best["speedup"]["vs_same_runtime_fp32"]),
        result["verdict"],
    )


if __name__ == "__main__":
    sys.exit(main())
