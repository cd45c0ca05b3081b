"""Calibrating ResNet-50 at 224×224: time and peak memory, with 30 images and with 300.

Each run has a process of its own, and they take turns. The weights are random with lived-in batch
norms, the images noise: neither matters for time and memory.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from _results import record, table

NETWORKS = Path(__file__).resolve().parent / "_networks.py"
COUNTS = (30, 300)
TOOLS = ("fettle mse", "fettle minmax", "fettle entropy", "onnxruntime minmax", "NNCF")


def main() -> None:
    """Export once, calibrate with each tool, write the table."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = _apart(_export, Path(folder))["path"]
        for tool in sys.argv[1:] or TOOLS:
            few, many = (_apart(_quantize, tool, path, n, Path(folder)) for n in COUNTS)
            if "skipped" in many:
                rows.append([tool, *["–"] * 4, many["skipped"]])
                continue
            rows.append([tool, f"{few['seconds']:.1f}", f"{many['seconds']:.1f}",
                         f"{few['megabytes']:.0f}", f"{many['megabytes']:.0f}",
                         f"{many['megabytes'] / few['megabytes']:.2f}"])  # fmt: skip
    head = ("tool", *(f"s, {n} images" for n in COUNTS), *(f"peak MB, {n}" for n in COUNTS),
            "memory, 300 over 30")  # fmt: skip
    goal = (
        "Goal: memory with 300 images within 1.2× of that with 30, and time no more than the faster"
        " of onnxruntime's and NNCF's.", "",
    )  # fmt: skip
    record("calibration", "Calibrating ResNet-50 at 224×224", [*goal, *table(head, rows)])


def _apart(work: Any, *args: Any) -> dict[str, Any]:
    """Return what `work` returns in a fresh process, which then ends."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(work, args, sender))
    process.start()
    sender.close()
    try:
        found: dict[str, Any] = receiver.recv()
    finally:
        process.join()
    return found


def _send(work: Any, args: tuple[Any, ...], sender: Any) -> None:
    sender.send(work(*args))


def _export(folder: Path) -> dict[str, Any]:
    from fettle import models, tasks
    from fettle.export import export_onnx

    task = tasks.load("noise:3x224x224")
    export_onnx(models.load(f"{NETWORKS}:resnet50"), task, folder / "fp32")
    return {"path": folder / "fp32" / "model.onnx"}


def _images(n: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    for _ in range(n):
        yield rng.standard_normal((1, 3, 224, 224), dtype=np.float32)


def _quantize(tool: str, path: Path, n: int, folder: Path) -> dict[str, Any]:
    name, _, calibrator = tool.partition(" ")
    work = {"fettle": _fettle, "onnxruntime": _onnxruntime, "NNCF": _nncf}[name]
    try:
        begin = work(path, n, folder, calibrator)
    except ModuleNotFoundError as error:
        return {"skipped": f"`{error.name}` is not installed"}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": time.perf_counter() - begin, "megabytes": peak}


def _fettle(path: Path, n: int, folder: Path, calibrator: str) -> float:
    import onnx_ir as ir

    from fettle import tasks
    from fettle.graph.static_int8 import StaticInt8

    # The splits of 960 images: `calibrate` has the 300 that are wanted.
    task = tasks.load("noise:3x224x224", examples=960, calibrate=300, select=200, test=200)
    begin = time.perf_counter()
    quantize = StaticInt8(calibrator=calibrator, samples=n)
    ir.save(quantize(ir.load(path), task), folder / "fettle.onnx")
    return begin


def _onnxruntime(path: Path, n: int, folder: Path, calibrator: str) -> float:
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.images = _images(n)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.images, None)
            return None if image is None else {"input": image}

    begin = time.perf_counter()
    prepared = folder / "prepared.onnx"
    quant_pre_process(path, prepared)
    quantize_static(
        prepared, folder / "ort.onnx", Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        calibrate_method=getattr(CalibrationMethod, {"minmax": "MinMax"}[calibrator]),
    )  # fmt: skip
    return begin


def _nncf(path: Path, n: int, folder: Path, calibrator: str) -> float:
    del calibrator
    os.environ["NNCF_EXTENSION_LOAD_TIMEOUT"] = "0"
    import nncf
    import openvino

    begin = time.perf_counter()
    model = openvino.Core().read_model(path)
    quantized = nncf.quantize(model, nncf.Dataset(_images(n)), subset_size=n)
    openvino.save_model(quantized, folder / "nncf.xml")
    return begin


if __name__ == "__main__":
    main()
