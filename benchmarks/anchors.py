"""Every engine and precision beside each other: the table that fettle's choices are held against.

Batch 1, one and two threads, random weights and inputs: speed alone. All forms of a network are
timed in one interleaved run, and the fastest of each row is marked, with all that can't be told
apart from it. Files and each network's numbers are kept as soon as they are there: the same command
goes on where it was stopped. Names choose networks; `--seconds` is for each row, `--again` measures
anew; `--prepare` makes the files and times nothing, for a machine that isn't quiet yet.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from _results import RESULTS, record, table
from _rivals import by_onnxruntime

from fettle import tasks
from fettle.core.arrays import rows
from fettle.core.context import Context
from fettle.core.errors import FettleError
from fettle.core.files import write_text
from fettle.core.machine import this_machine, versions
from fettle.core.progress import reporter
from fettle.core.recipe import Recipe
from fettle.report._bench_lines import Line, groups_of
from fettle.runtimes import Runtime
from fettle.search._store import Store
from fettle.search.bench import BenchSetting, bench
from fettle.search.journal import Journal
from fettle.search.subject import Subject, resolve
from fettle.search.workshop import Source, Workshop

HERE = Path(__file__).resolve().parent
KEPT = RESULTS / "anchors.jsonl"
FORMS = HERE.parent / "runs" / "anchors"
IMAGES = "noise:3x224x224"
MODELS = {
    "ResNet-18": (f"{HERE}/_networks.py:resnet18", IMAGES),
    "ResNet-50": (f"{HERE}/_networks.py:resnet50", IMAGES),
    "MobileNetV2": (f"{HERE}/_networks.py:mobilenet_v2", IMAGES),
    "MobileNetV3-small": (f"{HERE}/_networks.py:mobilenet_v3_small", IMAGES),
    "EfficientNet-B0": ("torchvision:efficientnet_b0", IMAGES),
    "ViT-B/16": ("torchvision:vit_b_16", IMAGES),
    "BERT-base-shaped": ("hf:bert-base", "tokens:128:2"),
    "LSTM classifier": ("rnn:lstm128x2", "rows:noise:1x64x128:10"),
}
TRANSFORMERS = ("ViT-B/16", "BERT-base-shaped")
COLUMNS = {
    ("f32", "pytorch"): "torch eager",
    ("f32", "pytorch(mode='compiled')"): "torch.compile",
    ("f32", "onnxruntime"): "ORT f32",
    ("int8", "onnxruntime"): "ORT INT8 lowered",
    ("u8s8", "onnxruntime"): "ORT's own u8s8",
    ("s8s8", "onnxruntime"): "ORT's own s8s8",
    ("dynamic", "onnxruntime"): "ORT INT8 dynamic",
    ("f32", "openvino"): "OpenVINO f32",
    ("f32", "openvino(precision='bf16')"): "OpenVINO bf16",
    ("int8", "openvino"): "OpenVINO INT8",
    ("weights", "openvino"): "OpenVINO INT8 weights",
}


class AsIs(Subject):
    """A rival's file: run as its maker left it."""

    def lowering(self, runtime: Runtime) -> tuple[str, ...]:
        """Return nothing."""
        del runtime
        return ()


def main() -> None:
    """Measure what isn't kept yet, then write the table of all that is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NETWORK", help=", ".join(MODELS))
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--prepare", action="store_true")
    args = parser.parse_args()
    unknown = sorted(set(args.names) - set(MODELS))
    if unknown:
        parser.error(f"unknown networks {unknown}; known: {', '.join(MODELS)}")
    for name in args.names or MODELS:
        if args.prepare:
            forms_of(name)
        elif args.again or name not in kept():
            print(f"{name} …", file=sys.stderr)
            keep(name, measured(name, args.seconds))
    if not args.prepare:
        write(kept())


def stamp() -> dict[str, Any]:
    """Return what a kept number holds for."""
    shown = versions()
    return {
        "cpu": this_machine().cpu,
        "versions": {p: shown[p] for p in ("torch", "onnxruntime", "openvino") if p in shown},
    }


def kept() -> dict[str, dict[str, Any]]:
    """Return what was measured on this processor with these versions, by network."""
    lines = KEPT.read_text(encoding="utf-8").splitlines() if KEPT.is_file() else []
    found = [json.loads(line) for line in lines]
    return {each["network"]: each for each in found if each["stamp"] == stamp()}


def keep(name: str, result: dict[str, Any]) -> None:
    """Add one network's result to what is kept."""
    lines = KEPT.read_text(encoding="utf-8").splitlines() if KEPT.is_file() else []
    line = json.dumps({"network": name, "stamp": stamp(), **result}, allow_nan=False)
    write_text(KEPT, "\n".join([*lines, line]) + "\n")


def measured(name: str, seconds: float) -> dict[str, Any]:
    """Return the benchmark of one network in all forms, and what is missing."""
    subjects, missing = forms_of(name)
    results = [timed(subjects, threads, seconds) for threads in (1, 2)]
    parts: dict[str, list[Any]] = {
        key: [each for result in results for each in result[key]]
        for key in ("rows", "ratios", "noises")
    }
    warnings = [(result["interference"] or {}).get("warning") for result in results]
    return {**parts, "missing": missing, "warnings": [w for w in warnings if w]}


def timed(subjects: Sequence[Subject], threads: int, seconds: float) -> dict[str, Any]:
    """Time every form that has a column, interleaved."""
    names = {subject.name for subject in subjects}
    runtimes = dict.fromkeys(runtime for form, runtime in COLUMNS if form in names)
    setting = BenchSetting(tuple(runtimes), (1,), (threads,), seconds, memory=False, roofline=False,
                           pairs=frozenset(COLUMNS))  # fmt: skip
    return bench(subjects, setting, reporter())


def forms_of(name: str) -> tuple[list[Subject], dict[str, str]]:
    """Return the network in every form, and why some couldn't be made."""
    source, data = MODELS[name]
    task, scratch = tasks.load(data), FORMS / name.replace("/", "-")
    scratch.mkdir(parents=True, exist_ok=True)
    plain = replace(resolve(source, scratch, data=data), name="f32")
    store = Store(scratch / "work", Journal(scratch / "work" / "journal.jsonl"))
    workshop = Workshop(Source(source), task, store, Context(progress=reporter()))
    given = next(task.batches("calibrate", 32)).inputs
    batches = [rows(given, i, i + 1) for i in range(32)]
    recipes = {"int8": "quantize.static(samples=32)"}
    if name in TRANSFORMERS:
        recipes["weights"] = "graph.weight_only"
    if name in TRANSFORMERS or name.startswith("LSTM"):
        recipes["dynamic"] = "graph.dynamic_int8"
    makers = {form: _recipe(workshop, line) for form, line in recipes.items()}
    makers |= {kind: _rival(plain, batches, scratch, kind) for kind in ("u8s8", "s8s8")}
    found, missing = [plain], dict[str, str]()
    for form, make in makers.items():
        try:
            kind = AsIs if form.endswith("s8") else Subject
            found.append(kind(form, make(), plain.inputs, True))
        except (FettleError, RuntimeError, ValueError, KeyError) as error:
            missing[form] = (str(error).splitlines() or [type(error).__name__])[0]
    return found, missing


def _recipe(workshop: Workshop, line: str) -> Any:
    return lambda: Path(workshop.make(Recipe.parse(line)).path)


def _rival(plain: Subject, batches: Sequence[Any], scratch: Path, kind: str) -> Any:
    signed = kind == "s8s8"
    path = scratch / f"{kind}.onnx"
    made = path.with_suffix(".made")  # written last

    def make() -> Path:
        if not made.is_file():
            by_onnxruntime(plain.onnx, batches, path, signed)
            made.touch()
        return path

    return make


def write(results: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the table, with what is missing below it."""
    lines, notes = [], []
    for name in MODELS:
        if name not in results:
            continue
        result = results[name]
        lines += [cells(name, group.threads, group.lines) for group in groups_of(result)]
        notes += [f"- {name}, {form}: {why}" for form, why in result["missing"].items()]
        refused = [row for row in result["rows"] if row["refused"]]
        notes += [f"- {name}, {row['subject']} @ {row['runtime']}, {row['threads']} threads:"
                  f" {row['refused']}" for row in refused]  # fmt: skip
        notes += [f"- {name}: {warning}" for warning in result["warnings"]]
    head = ("network", "threads", *COLUMNS.values())
    legend = ["p50 in ms, batch 1; random weights, which speed doesn't depend on; bold is the"
              " fastest, and whatever can't be told apart from it.", ""]  # fmt: skip
    record("anchors", "Every engine and precision, one interleaved run a row",
           [*legend, *table(head, lines), "", *notes])  # fmt: skip


def cells(name: str, threads: int, lines: Sequence[Line]) -> list[str]:
    """Return one row of the table."""
    by_form = {(line.row["subject"], line.row["runtime"]): line for line in lines}
    return [name, str(threads), *(cell(by_form.get(form)) for form in COLUMNS)]


def cell(line: Line | None) -> str:
    """Return a median, bold where it is the best or the same."""
    if line is None:
        return "–"
    text = f"{line.row['latency_ms']['p50']:.3g}"
    return f"**{text}**" if line.best or line.same else text


if __name__ == "__main__":
    main()
