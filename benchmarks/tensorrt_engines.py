"""ResNet-50 in f32, f16 and INT8 on TensorRT: device time by events, host end-to-end apart.

Needs an NVIDIA GPU and `pip install tensorrt`. Device times are of CUDA-graph replays on a stream
of their own, after 200 ms of warm-up; the three are timed in alternating blocks. Not run yet: no
machine with a GPU was at hand when it was written.

    python benchmarks/tensorrt_engines.py [batch]
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx_ir as ir
from _results import record, table

from fettle import models, tasks
from fettle.core.arrays import repeat_to, rows
from fettle.core.shelf import PASSES, RUNTIMES
from fettle.export import export_onnx

HERE = Path(__file__).resolve().parent
NETWORK, DATA = f"{HERE}/_networks.py:resnet50", "noise:3x224x224"
COLUMNS = ("min ms", "mean", "median", "p99", "max", "host median", "× f32")
RUNS, BLOCKS, HOST_RUNS = 1000, 10, 100


def main() -> None:
    """Build the three engines, time them in alternating blocks, write the table."""
    batch = int(sys.argv[1]) if sys.argv[1:] else 1
    runtime = RUNTIMES.make("tensorrt", batch=batch, largest_batch=batch)
    if reason := runtime.supports():
        sys.exit(reason)
    task = tasks.load(DATA)
    inputs = repeat_to(rows(next(task.batches("select", batch)).inputs, 0, batch), batch)
    with tempfile.TemporaryDirectory() as folder:
        files = made(task, Path(folder))
        sessions = {form: runtime.build(path) for form, path in files.items()}
        device = {form: [] for form in files}
        for _ in range(BLOCKS):
            for form, session in sessions.items():
                device[form] += session.device_times(inputs, RUNS // BLOCKS)
        found = [
            row(form, device[form], device["f32"], host(session, inputs))
            for form, session in sessions.items()
        ]
        for session in sessions.values():
            session.close()
    title = f"ResNet-50 on TensorRT, batch {batch}: {gpu()}"
    record("tensorrt", title, table(["form", *COLUMNS], found))


def made(task, folder: Path) -> dict[str, Path]:
    """Return the files: as exported, in half precision, and as symmetric int8 master."""
    export_onnx(models.load(NETWORK, signature=task.signature), task, folder / "f32")
    files = {"f32": folder / "f32" / "model.onnx"}
    for form, name in (("f16", "graph.half"), ("int8", "graph.static_int8")):
        files[form] = folder / f"{form}.onnx"
        ir.save(PASSES.make(name)(ir.load(files["f32"]), task), files[form])
    return files


def host(session, inputs) -> list[float]:
    """Return milliseconds of whole calls, transfers and copies counted in."""
    times = []
    for _ in range(HOST_RUNS):
        start = time.perf_counter()
        session.run(inputs)
        times.append(1000 * (time.perf_counter() - start))
    return times


def row(form: str, device: list[float], base: list[float], host_times: list[float]) -> list[str]:
    """Return the cells of `COLUMNS`: times on the device, of whole calls, and the ratio."""
    numbers = (
        *(min(device), np.mean(device), np.median(device), np.percentile(device, 99), max(device)),
        *(np.median(host_times), np.median(base) / np.median(device)),
    )
    return [form, *(f"{number:.3f}" for number in numbers)]


def gpu() -> str:
    """Return what the numbers are measured on."""
    import tensorrt as trt

    from fettle.runtimes._tensorrt_cuda import Cuda

    found = Cuda().gpu()
    return f"{found.name} ({found.capability}), TensorRT {trt.__version__}"


if __name__ == "__main__":
    main()
