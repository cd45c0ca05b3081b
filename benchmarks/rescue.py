"""What saves the accuracy of post-training quantization: calibrators, equalization, correction.

Each tool quantizes the same float file with the same calibration examples; every file is evaluated
in onnxruntime on all examples that calibration didn't see. The keyword spotter is a
depthwise-separable net made by others; the ResNets are the pretrained ones for CIFAR-10.

The symmetric master is evaluated as a session on x86 runs it, after `graph.lower_ort_x86`: what
can't be negative then has all 8 bits, as in the peers' files. One row shows it as it is written.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from _results import interval, record, table

from fettle import models, tasks
from fettle.core.recipe import parse_step
from fettle.export import export_onnx
from fettle.graph._execute import calibration
from fettle.measure import agreement, drop_of

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("FETTLE_DATA", ROOT.parent / "shared" / "data"))
EXAMPLES = 256  # of calibration
NETWORKS = ("kws", "resnet20", "resnet56")
CALIBRATORS = ("minmax", "percentile", "mse", "entropy")
REFINEMENTS = (
    "correct='fast'",
    "correct='full'",
    "rounding='adaptive'",
    "rounding='adaptive', correct='fast'",
    "rounding='adaptive', correct='full'",
)
PEERS = ("onnxruntime minmax", "onnxruntime percentile", "NNCF", "NNCF full bias correction")


@dataclass(frozen=True)
class Case:
    """A float file, its data, and which splits calibration doesn't see."""

    name: str
    path: Path
    task: tasks.Task
    splits: tuple[str, ...]

    def batches(self) -> Iterator[Any]:
        """Yield what the files are evaluated on."""
        for split in self.splits:
            yield from self.task.batches(split, 100)  # type: ignore[arg-type]


def main() -> int:
    """Quantize every network with every tool; write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", help=f"some of {', '.join(NETWORKS)}; default: all")
    chosen = parser.parse_args().networks or NETWORKS
    if not set(chosen) <= set(NETWORKS):
        parser.error(f"`networks` are some of {', '.join(NETWORKS)}, not {', '.join(chosen)}")
    if not (DATA / "cifar10").is_dir():
        print("skipped: FETTLE_DATA names no folder with cifar10/, kws/, weights/", file=sys.stderr)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        rows = [row for name in chosen for row in compared(case(name, Path(folder)))]
    head = ("network", "quantized with", "top-1 %", "drop, pp (one-sided 95 %)",
            "same class as FP32, %", "error of outputs, % of FP32's", "s to quantize")  # fmt: skip
    title = f"Rescuing post-training quantization, {EXAMPLES} calibration examples at most"
    record("rescue", title, table(head, rows))
    return 0


def case(name: str, folder: Path) -> Case:
    """Return a network by name, exported where it is no file yet."""
    if name == "kws":
        clips = np.load(DATA / "kws" / "kws_test.npz")
        np.savez(folder / "kws.npz", x=clips["x"], y=clips["y"].reshape(-1))
        task = tasks.load(f"npz:{folder / 'kws.npz'}", calibrate=200, select=200, test=400)
        return Case(name, DATA / "kws" / "kws_dscnn.onnx", task, ("train", "select", "test"))
    task = tasks.load(f"cifar10:{DATA / 'cifar10'}")
    weights = DATA / "weights" / f"cifar10_{name}.safetensors"
    export_onnx(models.load(f"cifar:{name}", weights=str(weights)), task, folder / name)
    return Case(name, folder / name / "model.onnx", task, ("test",))


def compared(case: Case) -> Iterator[list[str]]:
    """Yield the rows of one network."""
    expected, floats = evaluated(case, case.path)
    yield [case.name, "FP32", f"{100 * floats.mean():.2f} (n = {len(floats)})", *["–"] * 4]
    with tempfile.TemporaryDirectory() as folder:
        for label, quantize in tools(case):
            path = Path(folder) / "quantized.onnx"
            begin = time.perf_counter()
            try:
                quantize(path)
            except Exception as error:  # a peer's failure is a result too
                yield [case.name, label, *["–"] * 4, str(error).splitlines()[0][:120]]
                continue
            seconds = time.perf_counter() - begin
            yield [case.name, label, *cells(case, path, expected, floats), f"{seconds:.1f}"]
            print(case.name, label, file=sys.stderr, flush=True)


def cells(case: Case, path: Path, expected: np.ndarray, floats: np.ndarray) -> list[str]:
    """Return accuracy, drop, agreement and error of a quantized file."""
    found, scores = evaluated(case, path)
    drop = drop_of(floats, scores)
    same = agreement({"logits": expected}, {"logits": found}).top1
    error = np.sqrt(np.square(found - expected).mean() / np.square(expected).mean())
    percents = {"value": 100 * drop.value, "low": 100 * drop.low, "high": 100 * drop.high}
    return [f"{100 * scores.mean():.2f}", interval(percents), f"{100 * same:.2f}",
            f"{100 * error:.2f}"]  # fmt: skip


def evaluated(case: Case, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the logits (n, classes) of a file and whether each example is right."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    logits, scores = [], []
    for batch in case.batches():
        found = session.run(None, {name: next(iter(batch.inputs.values()))})[0]
        logits.append(found)
        scores.append(found.argmax(1) == batch.targets)
    return np.concatenate(logits), np.concatenate(scores).astype(np.float64)


def tools(case: Case) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """Yield every way to quantize, by name."""
    for calibrator in CALIBRATORS:
        given = f"calibrator='{calibrator}', samples={EXAMPLES}"
        yield f"fettle {calibrator}", _fettle(case, f"graph.static_int8({given})")
    base = f"samples={EXAMPLES}"
    yield "fettle mse, master not lowered", _fettle(case, f"graph.static_int8({base})", lower=False)
    asymmetric = f"graph.static_int8({base}, activations='asymmetric')"
    yield "fettle mse, asymmetric", _fettle(case, asymmetric, lower=False)
    for refinement in REFINEMENTS:
        yield f"fettle {refinement}", _fettle(case, f"graph.static_int8({base}, {refinement})")
    static = f"graph.static_int8({base})"
    yield "fettle equalized", _fettle(case, "graph.equalize", static)
    corrected = f"graph.static_int8({base}, correct='full')"
    yield "fettle equalized, correct='full'", _fettle(case, "graph.equalize", corrected)
    for peer in PEERS:
        work = _onnxruntime if peer.startswith("onnxruntime") else _nncf
        yield peer, lambda path, work=work, peer=peer: work(case, path, peer)


def _fettle(case: Case, *steps: str, lower: bool = True) -> Callable[[Path], None]:
    def quantize(path: Path) -> None:
        model = ir.load(case.path)
        for step in (*steps, *(("graph.lower_ort_x86",) if lower else ())):
            model = parse_step(step)(model, case.task)
        ir.save(model, path)

    return quantize


def _inputs(case: Case, size: int) -> Iterator[dict[str, np.ndarray]]:
    name = onnx.load(case.path, load_external_data=False).graph.input[0].name
    for batch in calibration(case.task, EXAMPLES, size):
        yield {name: next(iter(batch.values()))}


def _onnxruntime(case: Case, path: Path, tool: str) -> None:
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
            self.batches = _inputs(case, 8)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    prepared = path.with_name("prepared.onnx")
    quant_pre_process(case.path, prepared)
    methods = {"minmax": CalibrationMethod.MinMax, "percentile": CalibrationMethod.Percentile}
    quantize_static(
        prepared, path, Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        calibrate_method=methods[tool.split()[1]],
    )  # fmt: skip


def _nncf(case: Case, path: Path, tool: str) -> None:
    os.environ["NNCF_EXTENSION_LOAD_TIMEOUT"] = "0"
    import nncf
    from nncf.quantization.advanced_parameters import (
        AdvancedQuantizationParameters,
        QuantizationParameters,
    )

    # by default it quantizes depthwise activations by channel, which onnxruntime can't run
    advanced = AdvancedQuantizationParameters(
        activations_quantization_params=QuantizationParameters(per_channel=False)
    )
    quantized = nncf.quantize(
        onnx.load(case.path), nncf.Dataset(list(_inputs(case, 1))), subset_size=EXAMPLES,
        fast_bias_correction="full" not in tool, advanced_parameters=advanced,
    )  # fmt: skip
    onnx.save(quantized, path)


if __name__ == "__main__":
    sys.exit(main())
