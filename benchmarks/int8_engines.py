"""INT8 against FP32 on every engine, for ImageNet-size networks with random weights.

Speed doesn't depend on the weights. The images are noise, as are the labels: nothing is said of
accuracy here.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from _results import interval, record, table

from fettle import tasks
from fettle.core.progress import reporter
from fettle.core.recipe import Recipe
from fettle.search._store import Store
from fettle.search.bench import BenchSetting, bench
from fettle.search.journal import Journal
from fettle.search.subject import resolve
from fettle.search.workshop import Source, Workshop

NETWORKS = Path(__file__).resolve().parent / "_networks.py"
MODELS = ("resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_small")


def main() -> None:
    """Quantize each network, time all engines at 1 and 2 threads, write the table."""
    names = sys.argv[1:] or MODELS
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            rows += measured(name, Path(folder))
    head = ("network", "threads", "engine", "type", "p50 ms", "p90", "MB", "× same engine's f32",
            "noise floor")  # fmt: skip
    record("int8-engines", "INT8 against FP32, batch 1, 3×224×224", table(head, rows))


def measured(name: str, scratch: Path) -> list[list[str]]:
    """Return the rows of one network."""
    from fettle.core.context import Context

    task = tasks.load("noise:3x224x224")
    store = Store(scratch / name, Journal(scratch / name / "journal.jsonl"))
    workshop = Workshop(Source(f"{NETWORKS}:{name}"), task, store, Context(progress=reporter()))
    paths = {
        "f32": workshop.make(Recipe()).path,
        "int8": workshop.make(Recipe.parse("quantize.static")).path,
    }
    subjects = [resolve(str(path), scratch) for path in paths.values()]
    setting = BenchSetting(threads=(1, 2), seconds=40, memory=False)
    result = bench(subjects, setting, reporter())
    return [row_of(name, row, result) for row in result["rows"]]


def row_of(name: str, row: dict, result: dict) -> list[str]:
    """Return one row of the table."""
    engine = row["runtime"].partition("(")[0]
    plain = next(r for r in result["rows"] if r["precision"] == "f32"
                 and r["runtime"] == engine and r["threads"] == row["threads"])  # fmt: skip
    pair = [f"{r['subject']} @ {r['runtime']}" for r in (plain, row)]
    ratio = next((r for r in result["ratios"] if r["threads"] == row["threads"]
                  and [undress(r["a"]), undress(r["b"])] == pair), None)  # fmt: skip
    return [
        name,
        str(row["threads"]),
        engine,
        row["precision"],
        f"{row['latency_ms']['p50']:.2f}",
        f"{row['latency_ms']['p90']:.2f}",
        f"{row['size_bytes'] / 1e6:.1f}",
        interval(ratio) if ratio else "1",
        interval(result["noise"]),
    ]


def undress(label: str) -> str:
    """Return a label without its thread count."""
    for threads in (1, 2):
        label = label.replace(f"(threads={threads})", "").replace(f"threads={threads}, ", "")
    return label


if __name__ == "__main__":
    main()
