"""Twelve torchvision networks under a fidelity budget: the chosen artifact beside both engines.

python benchmarks/torchvision_fidelity.py [--only NAME …] [--time-limit 60s] [--seconds 30]
    [--threads 2] [--out DIR] [--again]

Weights are random, so the arg-max says little; the budget is on the signal-to-noise ratio of the
outputs: 15 dB, that is noise of 3 % of the signal, which is what the outputs tell from example to
example. `fettle optimize` chooses, batch 1, training nothing, for there is nothing to learn from
noise. Then its choice is timed in one interleaved run with onnxruntime in f32, OpenVINO in f32 and
bf16, and the INT8 files of both engines' own tools (onnxruntime.quantization u8s8, NNCF) on both
engines. The goal: never slower than the best of them that keeps the budget by more than the noise
floor, which is the choice timed against itself. What is faster and breaks the budget is shown, too.

Each network's row is kept in `--out` as soon as it is there: the same command goes on where it was
stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from _results import interval, record, table
from _rivals import by_nncf, by_onnxruntime
from anchors import AsIs

from fettle import tasks
from fettle.core.errors import FettleError
from fettle.core.progress import reporter
from fettle.core.recipe import Recipe
from fettle.measure import outputs_of
from fettle.runtimes import Runtime
from fettle.search.bench import BenchSetting, bench
from fettle.search.subject import Subject, resolve

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT.parent / "runs" / "torchvision-fidelity"
NETWORKS = (
    *("resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0"),
    *("shufflenet_v2_x1_0", "squeezenet1_1", "densenet121", "mnasnet1_0", "regnet_y_400mf"),
    *("convnext_tiny", "vit_b_16"),
)
DATA = "noise:3x224x224"
ASKED = f"{DATA}?examples=240&test=150&select=50&calibrate=32"
MAX_DROP = 0.03  # noise over signal
LEAST_DB = -10 * math.log10(MAX_DROP)
SKIPPED = ("prune", "distill", "quantize.aware")  # there is nothing to learn from noise
OURS, FP32, U8S8, NNCF = "fettle", "f32", "ORT's own u8s8", "NNCF"
ORT, OPENVINO, BF16 = "onnxruntime", "openvino", "openvino(precision='bf16')"
RIVALS = ((FP32, ORT), (FP32, OPENVINO), (FP32, BF16), (U8S8, ORT), (U8S8, OPENVINO),
          (NNCF, ORT), (NNCF, OPENVINO))  # fmt: skip
Row = dict[str, Any]


@dataclass(frozen=True)
class How:
    """Under which circumstances."""

    limit: str
    seconds: float
    threads: int
    out: Path


def main() -> int:
    """Search and time what isn't there yet; write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--time-limit", default="60s", help="of each search")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each comparison")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=OUT, help="where studies and rows lie")
    parser.add_argument("--again", action="store_true", help="compare anew")
    args = parser.parse_args()
    how = How(args.time_limit, args.seconds, args.threads, args.out)
    for name in args.only:
        kept = how.out / f"{name}.json"
        if args.again or not kept.is_file():
            how.out.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(compared(name, how)), encoding="utf-8")
    write([r for n in NETWORKS if (r := _read(how.out / f"{n}.json")) is not None], how)
    return 0


def task_words() -> list[str]:
    """Return the words that ask for outputs like the original's, without training."""
    skipped = [word for name in SKIPPED for word in ("--skip", name)]
    return ["--data", ASKED, "--task", "fidelity", "--max-drop", f"{MAX_DROP:g}", *skipped]


def compared(name: str, how: How) -> Row:
    """Search, then time the choice beside its rivals."""
    out = how.out / name
    words = [
        *("optimize", "--model", f"torchvision:{name}", *task_words(), "--target", "cpu"),
        *("--batch", "1", "--threads", str(how.threads), "--time-limit", how.limit),
        *("--out", str(out), "--json"),
    ]
    print(f"{name}: fettle {' '.join(words)}", file=sys.stderr)
    command = [sys.executable, "-m", "fettle", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = json.loads(done.stdout)
    if "error" in said:
        return {"network": name, "error": said["error"]}
    with tempfile.TemporaryDirectory(prefix="fettle-fidelity-") as folder:
        subjects, missing = forms_of(name, out / "best", Path(folder))
        ours = Recipe.parse(said["best"]["recipe"]).runtime
        pairs = frozenset([(OURS, _plain(ours)), *RIVALS])
        setting = BenchSetting(tuple(dict.fromkeys(r for _, r in sorted(pairs))), (1,),
                               (how.threads,), how.seconds, memory=False, roofline=False,
                               pairs=pairs)  # fmt: skip
        timed = bench(subjects, setting, reporter())
        decibels = {f"{s} @ {r}": fidelity(subjects, s, r) for s, r in pairs}
    return {
        "network": name,
        "verdict": said["verdict"],
        "recipe": said["best"]["recipe"],
        "seconds": said["seconds"],
        "drop": said["best"]["drop"],
        "rows": timed["rows"],
        "ratios": timed["ratios"],
        "noise": timed["noise"],
        "decibels": decibels,
        "missing": missing,
    }


def _plain(runtime: Any) -> str:
    """Return a runtime's name without its threads, which the comparison sets."""
    return str(runtime.but(threads=0))


def forms_of(name: str, best: Path, scratch: Path) -> tuple[list[Subject], dict[str, str]]:
    """Return the choice, the network in f32 and the rivals' files; and why some are missing."""
    plain = replace(resolve(f"torchvision:{name}", scratch, data=DATA), name=FP32)
    inputs = next(tasks.load(DATA).batches("calibrate", 32)).inputs
    images = next(iter(inputs.values()))
    batches = [images[i : i + 1] for i in range(len(images))]
    # the bundle's own golden inputs are what it was proven to answer
    found = [replace(resolve(str(best), scratch), name=OURS), plain]
    missing = dict[str, str]()
    for form, make in ((U8S8, by_onnxruntime), (NNCF, by_nncf)):
        try:
            made = make(plain.onnx, batches, scratch / f"{form.split()[0]}.onnx")
        except Exception as error:  # a rival's failure is a result, too
            made = (str(error).splitlines() or [type(error).__name__])[0]
        if isinstance(made, str):
            missing[form] = made
        else:
            found.append(AsIs(form, made, plain.inputs, True))
    return found, missing


def fidelity(subjects: Sequence[Subject], form: str, runtime: str) -> float | None:
    """Return 10·log10 of the signal's power over the noise's, in dB: as the task has it."""
    by_name = {subject.name: subject for subject in subjects}
    if form not in by_name:
        return None
    task = tasks.load(DATA)
    try:
        expected, found = (
            _outputs(by_name[subject], _runtime(engine), task)
            for subject, engine in ((FP32, ORT), (form, runtime))
        )
    except FettleError:
        return None
    noise = float(((expected - found) ** 2).sum())
    signal = float(((expected - expected.mean(axis=0)) ** 2).sum())
    return 10 * math.log10(signal / noise) if noise else None


def _outputs(subject: Subject, runtime: Runtime, task: Any) -> np.ndarray:
    session = runtime.build(subject.onnx, subject.lowering(runtime))
    try:
        outputs = outputs_of(session, task, "test", batch_size=1, limit=48)
    finally:
        session.close()
    return np.asarray(next(iter(outputs.values())), np.float64)


def _runtime(text: str) -> Runtime:
    runtime = Recipe.parse(f"@ {text}").runtime
    assert isinstance(runtime, Runtime)
    return runtime


def write(rows: Sequence[Row], how: How) -> None:
    """Write the dated result."""
    compared_ones = [row for row in rows if "error" not in row]
    head = ("network", "chosen", "p50 ms", "SNR dB", "best rival that keeps the budget", "p50 ms",
            "rival's time ÷ ours", "slower by more than noise", "fastest of all", "p50 ms",
            "SNR dB", "verdict", "s")  # fmt: skip
    lines = [cells(row) for row in compared_ones]
    slower = sum(line[7] == "yes" for line in lines)
    budget = f"a rival keeps the budget with at least {LEAST_DB:g} dB"
    said = [
        *(__doc__ or "").splitlines()[5:14],
        "",
        f"Limit {how.limit} a search, {how.threads} threads; {budget}. Slower than its best rival"
        f" by more than noise: {slower} of {len(lines)}.",
        "",
    ]
    notes = [f"- {row['network']}: {row['error']}" for row in rows if "error" in row]
    notes += [f"- {row['network']}, {form}: {why}" for row in compared_ones
              for form, why in row["missing"].items()]  # fmt: skip
    record("torchvision-fidelity", "Twelve torchvision networks under a fidelity budget",
           [*said, *table(head, lines), "", *notes])  # fmt: skip


def cells(row: Row) -> list[str]:
    """Return one row of the table."""
    ran = {_label(r): r["latency_ms"]["p50"] for r in row["rows"] if r["refused"] is None}
    ours = next(label for label in ran if label.startswith(f"{OURS} @"))
    rivals = {label: ms for label, ms in ran.items() if label != ours}
    sound = {label: ms for label, ms in rivals.items() if _keeps(row, label)}
    best, first = min(sound, key=sound.__getitem__), min(rivals, key=rivals.__getitem__)
    ratio, differs = _ratio(row, best, ours)
    return [
        row["network"],
        f"`{row['recipe']}`",
        f"{ran[ours]:.3g}",
        _decibels(row, ours),
        best,
        f"{ran[best]:.3g}",
        interval(ratio),
        "yes" if differs and ratio["value"] < 1 else "no",
        first,
        f"{ran[first]:.3g}",
        _decibels(row, first),
        row["verdict"],
        f"{row['seconds']:.0f}",
    ]


def _label(row: Row) -> str:
    return f"{row['subject']} @ {row['runtime']}"


def _keeps(row: Row, label: str) -> bool:
    found = row["decibels"].get(label)
    return label.startswith(f"{FP32} @ {ORT}") or (found is None or found >= LEAST_DB)


def _decibels(row: Row, label: str) -> str:
    found = row["decibels"].get(label)
    return "–" if found is None else f"{found:.0f}"


def _ratio(row: Row, a: str, b: str) -> tuple[dict[str, float], bool]:
    """Return a's time over b's, and whether that differs from 1 by more than noise."""
    for found in row["ratios"]:
        if (found["a"], found["b"]) == (a, b):
            return found, found["differs"]
        if (found["a"], found["b"]) == (b, a):
            turned = {k: 1 / found[o] for k, o in
                      (("value", "value"), ("low", "high"), ("high", "low"))}  # fmt: skip
            return turned, found["differs"]
    raise KeyError(f"{a} and {b} were not timed against each other")


def _read(path: Path) -> Row | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(main())
