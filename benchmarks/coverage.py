"""Which architectures each technique works on: every torchvision classifier, 60 of timm, sequences.

python benchmarks/coverage.py [--only TEXT] [--stage NAME] [--again] [--untimed] [--workers 1]

Each stage of each model runs in a process of its own, with a limit of time and memory. What is
found is appended to `results/coverage.jsonl`, so that a walk continues where it was stopped, on
another machine too; `--again` repeats what failed. The table is written from what has been found
so far.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
from _coverage_models import Subject, subjects
from _results import record, table

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / "runs" / "coverage"
FOUND = Path(__file__).resolve().parent / "results" / "coverage.jsonl"
STAGES = ("export", "static_int8", "dynamic_int8", "pruning", "aware")
GOALS = {"torchvision": {"export": 98, "static_int8": 97, "pruning": 95, "aware": 90}, "timm": {}}
EXPORTED = "fp32"
UNTIMED = "FETTLE_COVERAGE_UNTIMED"  # as the stages know it
SECONDS, GIGABYTES = 900, 12
_CONTEXT = multiprocessing.get_context("forkserver")
Found = dict[str, Any]


def main() -> int:
    """Walk, then write the table."""
    args = _arguments()
    if args.untimed:
        os.environ[UNTIMED] = "1"
    HOME.mkdir(parents=True, exist_ok=True)
    here = (Path(__file__).resolve().parent, ROOT / "src")  # this checkout's, not the installed one
    os.environ["PYTHONPATH"] = os.pathsep.join(map(str, here))  # of the server that forks
    _CONTEXT.set_forkserver_preload(["_coverage_stages"])
    known = _known()
    todo = [s for s in subjects() if args.only in s.model]
    with ThreadPoolExecutor(args.workers) as pool:
        list(pool.map(lambda subject: _walk(subject, args, known), todo))
    _write(_known())
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="models whose name contains this")
    parser.add_argument("--stage", default="", choices=["", *STAGES], help="this stage alone")
    parser.add_argument("--again", action="store_true", help="repeat what failed")
    parser.add_argument("--untimed", action="store_true", help="leave INT8's speed out")
    parser.add_argument("--workers", type=int, default=1, help="models at a time")
    return parser.parse_args()


def _walk(subject: Subject, args: argparse.Namespace, known: dict[tuple[str, str], Found]) -> None:
    """Do what is left to do of one model."""
    wanted = [stage for stage in STAGES if args.stage in ("", stage)]
    left = [s for s in wanted if _is_left(known.get((subject.model, s)), args.again)]
    if not left:
        return
    folder = HOME / subject.model.replace(":", "-").replace("/", "-")
    folder.mkdir(exist_ok=True)
    needs_file = {"static_int8", "dynamic_int8"} & set(left)
    if needs_file and not (folder / EXPORTED / "model.onnx").is_file() and "export" not in left:
        left.insert(0, "export")
    for stage in left:
        found = _limited(subject, stage, folder)
        line = {"model": subject.model, "stage": stage, **found}
        with FOUND.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        mark = "works" if found["works"] else found["why"]
        print(f"{subject.model} {stage}: {mark} ({found['seconds']:.0f} s)", file=sys.stderr)
        if stage == "export" and not found["works"]:
            break
    _tidy(folder, keep_export=args.stage != "")


def _tidy(folder: Path, keep_export: bool) -> None:
    """Remove what the stages made; the exported file may serve the next walk."""
    for made in folder.iterdir():
        if not (keep_export and made.name == EXPORTED):
            shutil.rmtree(made)


def _is_left(found: Found | None, again: bool) -> bool:
    return found is None or (again and not found["works"])


def _limited(subject: Subject, stage: str, folder: Path) -> Found:
    """Run one stage in a process of its own, within the limits."""
    receiver, sender = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_work, args=(subject, stage, folder, sender))
    started = time.monotonic()
    process.start()
    sender.close()
    why, peak = "", 0.0
    while process.is_alive() and not receiver.poll(0.2):
        peak = max(peak, _memory(process.pid))
        if time.monotonic() - started > SECONDS:
            why = f"took more than {SECONDS} s"
        elif peak > GIGABYTES:
            why = f"took more than {GIGABYTES} GB"
        if why:
            process.kill()
            break
    found = _received(receiver) if not why else {"works": False, "why": why}
    process.join()
    seconds = time.monotonic() - started
    return {**found, "seconds": round(seconds, 1), "gigabytes": round(peak, 2)}


def _received(receiver: Any) -> Found:
    try:
        found: Found = receiver.recv()
    except EOFError:
        return {"works": False, "why": "the process died"}
    return found


def _memory(pid: int | None) -> float:
    try:
        return float(psutil.Process(pid).memory_info().rss) / 1e9
    except psutil.Error:
        return 0.0


def _work(subject: Subject, stage: str, folder: Path, sender: Any) -> None:
    """Run in the process: do the stage, send what was found."""
    import warnings

    warnings.simplefilter("ignore")
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - until the process ends
    import torch
    from _coverage_stages import STAGES as WORK

    torch.set_num_threads(1)
    try:
        sender.send({"works": True, **WORK[stage](subject, folder)})
    except Exception as error:  # whatever falls is a finding
        text = " ".join(str(error).split())[:300]
        sender.send({"works": False, "why": f"{type(error).__name__}: {text}"})


def _known() -> dict[tuple[str, str], Found]:
    """Return the newest finding for each model and stage."""
    if not FOUND.exists():
        return {}
    lines = [json.loads(line) for line in FOUND.read_text(encoding="utf-8").splitlines()]
    return {(line["model"], line["stage"]): line for line in lines}


def _write(known: dict[tuple[str, str], Found]) -> None:
    everyone = subjects()
    shares = [
        [group, stage, f"{works} of {total}", f"{100 * works / total:.1f} %", goal]
        for group in ("torchvision", "timm", "sequence")
        for stage in STAGES
        for works, total, goal in [_share(everyone, group, stage, known)]
        if total
    ]
    rows = [
        [s.model, s.family, *(_cell(known.get((s.model, stage))) for stage in STAGES)]
        for s in everyone
    ]
    failures = [
        f"- `{model}` {stage}: {found['why']}"
        for (model, stage), found in sorted(known.items())
        if not found["works"]
    ]
    parts = [
        "Random weights, batch norms settled on 8 noise images, the model's own image size; static"
        " INT8 calibrated on 8 images, pruning of 30 % without fine-tuning, two steps of QAT."
        " Speeds are one-thread hints (other work ran beside them): INT8 over the same engine's"
        " FP32, onnxruntime / OpenVINO. *slower* marks a model whose INT8 is slower on both;"
        " *noisy* one that any rounding throws about: INT8 moves its outputs by more than half, but"
        " no farther than NNCF's own INT8 file of the same images does.",
        "", *table(("models", "stage", "works", "share", "goal"), shares), "",
        "## By model", "", *table(("model", "family", *STAGES), rows), "",
        "## What fails, and why", "", *(failures or ["Nothing."]),
    ]  # fmt: skip
    record("coverage", "Which architectures each technique works on", parts)


def _share(
    everyone: list[Subject], group: str, stage: str, known: dict[tuple[str, str], Found]
) -> tuple[int, int, str]:
    found = [known.get((s.model, stage)) for s in everyone if s.group == group]
    counts = Counter(f["works"] for f in found if f)
    goal = GOALS.get(group, {}).get(stage)
    unmet = len(found) - sum(counts.values())
    text = f"≥ {goal} %" if goal else ("≥ 90 %" if group == "timm" else "–")
    return counts[True], sum(counts.values()), text + (f" ({unmet} not walked)" if unmet else "")


def _cell(found: Found | None) -> str:
    if found is None:
        return "·"
    if not found["works"]:
        return "**fails**"
    if "engines" not in found:
        extra = found.get("parameters") if found["stage"] == "pruning" else None
        return f"{extra:.2f} of the parameters" if extra else "works"
    engines = [found["engines"][e] for e in ("onnxruntime", "openvino")]
    speeds = [engine.get("speed") for engine in engines]
    text = " / ".join(_speed(engine) for engine in engines)
    if any("nncf" in engine for engine in engines):
        text += " *noisy*"
    timed = [speed for speed in speeds if speed]
    return text + (" *slower*" if timed and max(timed) < 1 else "")


def _speed(engine: Found) -> str:
    if "refused" in engine:
        return "refused"
    return f"{engine['speed']:.1f}×" if engine["speed"] else "not timed"


if __name__ == "__main__":
    sys.exit(main())
