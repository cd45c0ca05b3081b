"""How near each network comes to what this machine could do: FP32, bf16 and INT8 on both engines.

`python benchmarks/roofline.py [THREADS [NETWORK…]]`
"""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path

from _results import record, table

from fettle import measure, tasks
from fettle.core.context import Context
from fettle.core.progress import reporter
from fettle.core.recipe import Recipe
from fettle.measure.lowering import choose_lowering
from fettle.measure.peaks import Peaks, peaks_of
from fettle.measure.profile import Profile, profile
from fettle.measure.unfused import Leftovers, unfused
from fettle.runtimes import Runtime, Session
from fettle.runtimes.onnxruntime import OnnxRuntime
from fettle.runtimes.openvino import OpenVino
from fettle.search._store import Store
from fettle.search.journal import Journal
from fettle.search.workshop import Source, Workshop

HERE = Path(__file__).resolve().parent
IMAGES, TOKENS = "noise:3x224x224", "noise:1x128x256:10"
NETWORKS = {
    "resnet18": ("_networks.py", IMAGES),
    "resnet50": ("_networks.py", IMAGES),
    "mobilenet_v2": ("_networks.py", IMAGES),
    "mobilenet_v3_small": ("_networks.py", IMAGES),
    "vit_tiny": ("_encoders.py", "noise:3x224x224:10"),
    "bert": ("_encoders.py", TOKENS),
}
SECONDS = 3.0


def main() -> None:
    """Quantize each network, time and bound it on each engine, write the table."""
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    peaks = peaks_of(threads, again=True)
    rows, slow = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name in sys.argv[2:] or NETWORKS:
            for found in measured(name, Path(folder), threads, peaks):
                rows.append(found[0])
                slow.append(found[1])
    head = ("network", "engine", "type", "p50 ms", "bound ms", "fraction", "sum of layers ms",
            "meant for int8", "left in float")  # fmt: skip
    worst = ("network", "engine", "type", "the layers with the most time beyond their bound")
    record("roofline", f"Fractions of each artifact's own bound, batch 1, {threads} threads",
           [*table(head, rows), "", *table(worst, slow)])  # fmt: skip


def measured(
    name: str, scratch: Path, threads: int, peaks: Peaks
) -> list[tuple[list[str], list[str]]]:
    """Return the rows of one network: each engine and type."""
    file, data = NETWORKS[name]
    task = tasks.load(data)
    store = Store(scratch / name, Journal(scratch / name / "journal.jsonl"))
    workshop = Workshop(Source(f"{HERE / file}:{name}"), task, store, Context(progress=reporter()))
    plain = workshop.make(Recipe()).path
    integer = workshop.make(Recipe.parse("quantize.static")).path
    ort, vino = OnnxRuntime(threads=threads), OpenVino(threads=threads)
    half = vino.but(precision="bf16")
    runs = [("f32", plain, ort), ("f32", plain, vino), ("int8", integer, ort),
            ("int8", integer, vino)]  # fmt: skip
    if half.supports() is None:
        runs.insert(2, ("bf16", plain, half))
    batch, proof = task.example_inputs(1), task.example_inputs(8)
    found = []
    for kind, path, runtime in runs:
        lowering = choose_lowering(path, runtime, proof)[0] if kind == "int8" else ()
        session = runtime.build(path, lowering)
        layers = profile(path, session, batch, peaks)
        left = unfused(path, session, _engine(runtime), None, lowering)
        found.append(row_of([name, _engine(runtime), kind], time_of(session, batch), layers, left))
        session.close()
    return found


def time_of(session: Session, batch: dict) -> float:
    """Return the median latency in ms."""
    subject = measure.Subject("it", partial(session.run, batch))
    samples = measure.time_interleaved([subject], measure.Plan(seconds=SECONDS))["it"]
    return float(measure.summary(samples)["p50"])


def row_of(
    head: list[str], ms: float, layers: Profile, left: Leftovers
) -> tuple[list[str], list[str]]:
    """Return a row of each of the two tables."""
    fraction = layers.bound_ms / ms
    numbers = [f"{ms:.3f}", f"{layers.bound_ms:.3f}", f"{fraction:.2f}", f"{layers.layers_ms:.3f}"]
    worst = ", ".join(f"{x.name} ({x.op}, {x.share:.0%})" for x in layers.slowest(3))
    return [*head, *numbers, str(left.meant), str(len(left.layers))], [*head, worst]


def _engine(runtime: Runtime) -> str:
    return type(runtime).__name__.lower()


if __name__ == "__main__":
    main()
