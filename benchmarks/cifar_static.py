"""Post-training quantization of the pretrained CIFAR-10 ResNets, proven on all test images."""

from __future__ import annotations

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

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("FETTLE_DATA", ROOT.parent / "shared" / "data"))


def main() -> int:
    """Quantize ResNet-20 and ResNet-56, write the table."""
    if not (DATA / "cifar10").is_dir():
        print("skipped: FETTLE_DATA names no folder with cifar10/ and weights/", file=sys.stderr)
        return 0
    task = tasks.load(f"cifar10:{DATA / 'cifar10'}")
    rows = [row for name in ("resnet20", "resnet56") for row in proven(name, task)]
    head = ("network", "engine", "type", "top-1 % (test, n = 10,000)", "drop, pp (one-sided 95 %)",
            "verdict, 1 pp", "MB", "p50 ms", "× same engine's f32", "× torch eager")  # fmt: skip
    record("cifar-static", "quantize.static on CIFAR-10, batch 64", table(head, rows))
    return 0


def proven(name: str, task: tasks.Task) -> list[list[str]]:
    """Return the rows of one network: both engines are proven, each in a study of its own."""
    weights = str(DATA / "weights" / f"cifar10_{name}.safetensors")
    rows = []
    for engine in ("onnxruntime", "openvino"):
        setting = Setting(target=(engine,), batch=64, seconds=30, only_given=True)
        result = compress(
            Source(f"cifar:{name}", weights), task, Recipe.parse("quantize.static"),
            ROOT / "runs" / f"bench-{name}-{engine}", setting, Context(progress=reporter()),
        )  # fmt: skip
        rows += [cells(name, result[which], result["verdict"]) for which in ("baseline", "best")]
    return rows


def cells(name: str, row: dict, verdict: str) -> list[str]:
    """Return one row of the table."""
    drop = {k: 100 * v for k, v in row["drop"].items() if k in ("value", "low", "high")}
    percent = {k: 100 * v for k, v in row["metric"].items() if k in ("value", "low", "high")}
    quantized = row["precision"] == "int8"
    return [
        name,
        row["runtime"],
        row["precision"],
        interval(percent),
        interval(drop) if quantized else "–",
        verdict if quantized else "–",
        f"{row['size_bytes'] / 1e6:.2f}",
        f"{row['latency_ms']['p50']:.2f}",
        interval(row["speedup"]["vs_same_runtime_fp32"]),
        interval(row["speedup"]["vs_torch_eager"]),
    ]


if __name__ == "__main__":
    sys.exit(main())
