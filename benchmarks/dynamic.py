"""The forms that need no calibration, on both engines: dynamic INT8, INT8, INT4 and FP16 weights.

Each form is timed against the same engine's FP32, interleaved, at batch 1 and 1 thread, after the
lowering that proves itself; beside them the file of onnxruntime.quantization.quantize_dynamic.

    python benchmarks/dynamic.py [LSTM|BERT-shaped|ViT|BERT-base …]
"""

from __future__ import annotations

import gc
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from _results import interval, record, table
from _sequences import NETWORKS, exported

from fettle import measure
from fettle.core.arrays import Arrays, rows
from fettle.core.errors import FettleError
from fettle.core.recipe import parse_step
from fettle.core.shelf import RUNTIMES
from fettle.measure.lowering import choose_lowering
from fettle.runtimes import Runtime, Session
from fettle.search._trial import precision_of

FORMS = (
    "graph.dynamic_int8",
    "graph.weight_only",
    "graph.weight_only(bits=4)",
    "graph.weight_only(bits=4, group=128)",
    "graph.float16",
)
PEER = "onnxruntime.quantization.quantize_dynamic"
PLAN = measure.Plan(seconds=8, rounds=16)


def main() -> None:
    """Make every form of every network, time it on both engines, write the table."""
    wanted = [n for n in NETWORKS if any(n.startswith(a) for a in sys.argv[1:] or [""])]
    lines: list[list[str]] = []
    for name in wanted:
        with tempfile.TemporaryDirectory() as folder:
            lines += measured(name, Path(folder))
    head = ("network", "form", "MB", "of FP32", "engine", "p50 ms", "× same engine's FP32",
            "mean difference", "largest difference", "lowering")  # fmt: skip
    note = "Differences are from onnxruntime's FP32, over the mean absolute output; 8 examples."
    title = "Forms without calibration, batch 1, 1 thread"
    record("dynamic", title, [note, "", *table(head, lines)])


def measured(name: str, folder: Path) -> list[list[str]]:
    """Return the rows of one network."""
    path, inputs = exported(name, folder)
    forms = {"FP32": path, **made(path)}
    runtimes = [RUNTIMES.make(engine, threads=1) for engine in ("onnxruntime", "openvino")]
    reference = None
    lines = []
    for runtime in runtimes:
        assert isinstance(runtime, Runtime)
        plain = runtime.build(path)
        reference = reference or measure.run_batch(plain, inputs)
        for form, file in forms.items():
            cells = [name, form, *sizes(file, path), runtime.name()]
            lines.append([*cells, *against(runtime, plain, file, inputs, reference)])
            print(" | ".join(lines[-1]), file=sys.stderr, flush=True)
            gc.collect()
        plain.close()
    return lines


def made(path: Path) -> dict[str, Path]:
    """Write each form of a model beside it."""
    found = {}
    for i, form in enumerate(FORMS):
        found[form] = path.with_name(f"{i}.onnx")
        ir.save(parse_step(form)(ir.load(path)), found[form])  # type: ignore[operator]
    found[PEER] = path.with_name("peer.onnx")
    peer(path, found[PEER])
    return found


def peer(path: Path, target: Path) -> None:
    """Write what onnxruntime.quantization makes of a model, in the way that its manual advises."""
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    ready = path.with_name("ready.onnx")
    quant_pre_process(path, ready, skip_symbolic_shape=True)
    model = onnx.load(ready)
    del model.graph.value_info[:]  # its shapes are those before the transposition of weights
    quantize_dynamic(model, target, weight_type=QuantType.QInt8)


def sizes(file: Path, plain: Path) -> list[str]:
    """Return megabytes and the share of the FP32 file."""
    size, whole = (measure.onnx_bytes(path) for path in (file, plain))
    return [f"{size / 1e6:.2f}", f"{size / whole:.1%}"]


def against(
    runtime: Runtime, plain: Session, file: Path, inputs: Arrays, reference: Arrays
) -> list[str]:
    """Return latency, ratio, differences and lowering of one form."""
    try:
        quantized = precision_of(file, runtime).startswith("int")
        lowering = choose_lowering(file, runtime, inputs)[0] if quantized else ()
        session = runtime.build(file, lowering)
        differences = apart(reference, measure.run_batch(session, inputs))
    except FettleError as error:
        return ["–", f"refused: {error}", "–", "–", "–"]
    one = rows(inputs, 0, 1)
    subjects = [
        measure.Subject(label, partial(measure.run_batch, opened, one))
        for label, opened in (("FP32", plain), ("form", session))
    ]
    samples = measure.time_interleaved(subjects, PLAN)
    session.close()
    ratio = measure.ratio(samples["FP32"], samples["form"]).to_json()
    p50 = measure.summary(samples["form"])["p50"]
    return [f"{p50:.2f}", interval(ratio), *differences, ", ".join(lowering) or "–"]


def apart(expected: Arrays, found: Arrays) -> list[str]:
    """Return the mean and the largest absolute difference over the mean absolute output."""
    a, b = (next(iter(arrays.values())).astype(np.float64) for arrays in (expected, found))
    gaps: Any = np.abs(a - b) / np.abs(a).mean()
    return [f"{gaps.mean():.4f}", f"{gaps.max():.3f}"]


if __name__ == "__main__":
    main()
