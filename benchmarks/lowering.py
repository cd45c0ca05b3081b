"""Our INT8 master, lowered, against onnxruntime's and NNCF's own files and FP32, in one run.

Batch 1, one thread, random weights and random inputs: speed alone. Each engine's subjects are timed
interleaved; the ratios are over the same engine's FP32, with 95 % intervals.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from _results import interval, record, table
from _rivals import by_nncf, by_onnxruntime

from fettle import measure, tasks
from fettle.core.arrays import Arrays, rows
from fettle.core.context import Context
from fettle.core.errors import FettleError
from fettle.core.recipe import Recipe
from fettle.core.shelf import RUNTIMES
from fettle.measure.lowering import choose_lowering
from fettle.runtimes import Session
from fettle.search._store import Store
from fettle.search.journal import Journal
from fettle.search.workshop import Source, Workshop

HERE = Path(__file__).resolve().parent
IMAGES, TOKENS = "noise:3x224x224", "noise:1x128x256:10"
MODELS = {
    "resnet18": (f"{HERE}/_networks.py:resnet18", IMAGES),
    "resnet50": (f"{HERE}/_networks.py:resnet50", IMAGES),
    "mobilenet_v2": (f"{HERE}/_networks.py:mobilenet_v2", IMAGES),
    "mobilenet_v3_small": (f"{HERE}/_networks.py:mobilenet_v3_small", IMAGES),
    "vit_tiny": (f"{HERE}/_encoders.py:vit_tiny", "noise:3x224x224:10"),
    "bert_4x256": (f"{HERE}/_encoders.py:bert", TOKENS),
}
ENGINES = ("onnxruntime", "openvino")
PLAN = measure.Plan(seconds=16, rounds=24, samples=300)
CALIBRATION = 32


@dataclass(frozen=True)
class Made:
    """One network in every form: files by label, and why some are missing."""

    files: dict[str, Path]
    missing: dict[str, str]
    inputs: Arrays


def main() -> None:
    """Make every file, time all of them on both engines, write the table."""
    found, notes = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name in sys.argv[1:] or MODELS:
            made = made_of(name, Path(folder) / name)
            notes += [f"- {name}, {label}: {why}" for label, why in made.missing.items()]
            for engine in ENGINES:
                lines, said = measured(name, made, engine)
                found += lines
                notes += said
    head = ("network", "engine", "file", "p50 ms", "× same engine's f32", "noise floor")
    record("lowering", "INT8 masters lowered, and their rivals: batch 1, one thread",
           [*table(head, found), "", *notes])  # fmt: skip


def made_of(name: str, scratch: Path) -> Made:
    """Return FP32, our master and the rivals' files."""
    source, data = MODELS[name]
    task = tasks.load(data)
    workshop = Workshop(Source(source), task, Store(scratch, Journal(scratch / "journal.jsonl")),
                        Context())  # fmt: skip
    files = {
        "f32": Path(workshop.make(Recipe()).path),
        "fettle": Path(workshop.make(Recipe.parse("quantize.static(samples=64)")).path),
    }
    inputs = next(task.batches("calibrate", CALIBRATION)).inputs
    array = next(iter(inputs.values()))
    batches = [array[i : i + 1] for i in range(len(array))]
    missing: dict[str, str] = {}
    for label, make in (("onnxruntime's own", by_onnxruntime), ("NNCF's own", by_nncf)):
        out = make(files["f32"], batches, scratch / f"{label.split(chr(39))[0]}.onnx")
        if isinstance(out, Path):
            files[label] = out
        else:
            missing[label] = out
    return Made(files, missing, rows(inputs, 0, 8))


def measured(name: str, made: Made, engine: str) -> tuple[list[list[str]], list[str]]:
    """Return the rows of one network on one engine, and what was lowered."""
    runtime = RUNTIMES.make(engine, threads=1)
    chosen, _ = choose_lowering(made.files["fettle"], runtime, made.inputs)
    notes = [f"- {name} on {engine} is lowered by {', '.join(chosen) or 'nothing'}"]
    sessions: dict[str, Session] = {}
    for label, path in made.files.items():
        try:
            session = runtime.build(path, chosen if label == "fettle" else ())
            session.run(one_of(session, made.inputs))
            sessions[label] = session
        except (FettleError, RuntimeError) as error:
            notes.append(f"- {name}, {label} on {engine}: {str(error).splitlines()[0]}")
    return timed(name, engine, sessions, made.inputs), notes


def timed(name: str, engine: str, sessions: dict[str, Session], inputs: Arrays) -> list[list[str]]:
    """Time all sessions of one engine interleaved."""
    subjects = [
        measure.Subject(label, partial(session.run, one_of(session, inputs)))
        for label, session in sessions.items()
    ]
    plain = subjects[0]
    samples = measure.time_interleaved([*subjects, measure.twin_of(plain)], PLAN)
    floor = interval(measure.noise_in(samples, plain.label).to_json())
    return [
        [
            name,
            engine,
            label,
            f"{np.median(samples[label].ms):.2f}",
            interval(measure.ratio(samples[plain.label], samples[label]).to_json()),
            floor,
        ]
        for label in sessions
    ]


def one_of(session: Session, inputs: Arrays) -> Arrays:
    """Return one example under the session's own input name."""
    return {session.inputs[0].name: next(iter(inputs.values()))[:1]}


if __name__ == "__main__":
    main()
