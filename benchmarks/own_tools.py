"""Fettle's engines against the engines' own benchmark tools: latency and throughput, FP32.

Each tool and fettle run in processes of their own, in turn, all processors each. OpenVINO's tool is
`benchmark_app`. onnxruntime's wheel holds no `onnxruntime_perf_test`: its stand-ins are
`onnxruntime.tools.onnxruntime_test` for latency, and for throughput `InferenceSession.run` of a
session with default options, called by as many threads as there are processors.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _results import interval, record, table
from scipy import stats

HERE = Path(__file__).resolve().parent
IMAGES = "noise:3x224x224"
MODELS = {
    "resnet18": (f"{HERE}/_networks.py:resnet18", IMAGES, (3, 224, 224)),
    "mobilenet_v2": (f"{HERE}/_networks.py:mobilenet_v2", IMAGES, (3, 224, 224)),
    "bert_4x256": (f"{HERE}/_encoders.py:bert", "noise:1x128x256:10", (1, 128, 256)),
}
ENGINES = {"openvino": "benchmark_app", "onnxruntime": "onnxruntime's own"}
Found = dict[str, float]


def main() -> None:
    """Export each network, let both sides run in turn, write the table."""
    options = _arguments()
    if options.worker:
        print(json.dumps(_WORKERS[options.worker](options)))
        return
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.models or MODELS:
            path = exported(name, Path(folder) / name)
            for engine in ENGINES:
                for goal in ("latency", "throughput"):
                    print(name, engine, goal, file=sys.stderr)
                    lines.append(compared(name, path, engine, goal, options))
    head = ("network", "engine", "goal", "own tool", "fettle", "× own tool")
    note = (
        "Medians over the rounds: milliseconds for one example (OpenVINO: median, onnxruntime:"
        " mean), examples a second for throughput. The ratio is above 1 where fettle is the"
        " faster, the geometric mean over the rounds with its 95 % interval."
    )
    title = "Fettle's engines and their own tools: FP32, batch 1, all processors"
    record("own-tools", title, [*table(head, lines), "", note])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", choices=[*MODELS, []])
    parser.add_argument("--seconds", type=float, default=6, help="of one run")
    parser.add_argument("--rounds", type=int, default=8)
    for name in ("--worker", "--path", "--engine", "--goal", "--shape"):
        parser.add_argument(name, default="", help=argparse.SUPPRESS)
    return parser.parse_args()


def exported(name: str, scratch: Path) -> Path:
    """Return the network's ONNX file, with a free batch dimension."""
    from fettle import models, tasks
    from fettle.export import export_onnx

    source, data, _ = MODELS[name]
    task = tasks.load(data)
    export_onnx(models.load(source, signature=task.signature), task, scratch)
    return scratch / "model.onnx"


def compared(
    name: str, path: Path, engine: str, goal: str, options: argparse.Namespace
) -> list[str]:
    """Return one row: both sides, run in turn, the first to go changing each round."""
    shape = (1, *MODELS[name][2])
    found: dict[str, list[float]] = {"own": [], "fettle": []}
    for turn in range(options.rounds):
        for side in ("own", "fettle")[:: 1 if turn % 2 else -1]:
            if side == "own" and engine == "openvino":
                value = by_benchmark_app(path, goal, shape, options.seconds)
            elif side == "own" and goal == "latency":
                # as many runs as fill the time, by fettle's own latency
                runs = max(int(1000 * options.seconds / found["fettle"][0]), 2)
                value = by_onnxruntime_test(path, runs)
            else:
                worker = "fettle" if side == "fettle" else "onnxruntime"
                value = by_worker(worker, path, engine, goal, shape, options.seconds)
            found[side].append(value)
    pairs = [np.log(found[s]) for s in ("own", "fettle")]
    gain = (pairs[0] - pairs[1]) * (1 if goal == "latency" else -1)
    shown = [f"{np.median(found[side]):.2f}" for side in ("own", "fettle")]
    return [name, f"{engine} ({ENGINES[engine]})", goal, *shown, interval(_mean(gain))]


def _mean(logarithms: np.ndarray) -> Found:
    """Return the geometric mean with Student's interval."""
    center = float(logarithms.mean())
    half = 0.0
    if len(logarithms) > 1:
        error = float(stats.sem(logarithms))
        half = error * float(stats.t.ppf(0.975, len(logarithms) - 1))
    return {k: float(np.exp(center + d)) for k, d in (("value", 0), ("low", -half), ("high", half))}


def by_benchmark_app(path: Path, goal: str, shape: tuple[int, ...], seconds: float) -> float:
    """Return the median latency, or the throughput, that OpenVINO's tool finds."""
    program = Path(sys.executable).parent / "benchmark_app"
    dimensions = ",".join(map(str, shape))
    with tempfile.TemporaryDirectory() as folder:
        _run([str(program), "-m", str(path), "-d", "CPU", "-hint", goal, "-t",
              str(max(round(seconds), 1)), "-data_shape", f"[{dimensions}]", "-infer_precision",
              "f32", "-report_type", "no_counters", "-json_stats", "-report_folder",
              folder])  # fmt: skip
        (report,) = Path(folder).glob("*.json")
        results = json.loads(report.read_text())["execution_results"]
    return float(results["latency (ms)" if goal == "latency" else "throughput"])


def by_onnxruntime_test(path: Path, runs: int) -> float:
    """Return the mean latency that the tool in onnxruntime's wheel finds."""
    said = _run([sys.executable, "-m", "onnxruntime.tools.onnxruntime_test", str(path), str(runs)])
    found = re.search(r"avg latency: ([\d.e-]+) ms", said)
    assert found, said
    return float(found[1])


def by_worker(
    worker: str, path: Path, engine: str, goal: str, shape: tuple[int, ...], seconds: float
) -> float:
    """Return what a process of this file finds."""
    said = _run([sys.executable, __file__, "--worker", worker, "--path", str(path), "--engine",
                 engine, "--goal", goal, "--seconds", str(seconds), "--shape",
                 "x".join(map(str, shape))])  # fmt: skip
    found = json.loads(said.splitlines()[-1])
    if goal == "throughput":
        return float(found["throughput"])
    return float(found["mean" if engine == "onnxruntime" else "median"])


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def fettle_worker(options: argparse.Namespace) -> Found:
    """Time a session of fettle."""
    from fettle.core.shelf import RUNTIMES

    session: Any = RUNTIMES.make(options.engine, goal=options.goal).build(Path(options.path))
    inputs = {session.inputs[0].name: _input(options)}
    warm = options.engine == "openvino" or options.goal == "throughput"
    return _timed(lambda: session.run(inputs), session.callers, options.seconds, warm)


def onnxruntime_worker(options: argparse.Namespace) -> Found:
    """Time onnxruntime with its defaults."""
    import onnxruntime as ort

    from fettle.core.machine import usable_threads

    session = ort.InferenceSession(options.path, providers=["CPUExecutionProvider"])
    inputs = {session.get_inputs()[0].name: _input(options)}
    return _timed(lambda: session.run([], inputs), usable_threads(), options.seconds, True)


_WORKERS = {"fettle": fettle_worker, "onnxruntime": onnxruntime_worker}


def _input(options: argparse.Namespace) -> np.ndarray:
    shape = [int(part) for part in options.shape.split("x")]
    return np.random.default_rng(0).random(shape, dtype=np.float32)


def _timed(call: Callable[[], Any], callers: int, seconds: float, warm: bool) -> Found:
    """Return milliseconds a call, and calls a second.

    Args:
        call: runs one example.
        callers: threads that call at once.
        seconds: for how long.
        warm: whether the first runs are left out, as `benchmark_app` does and onnxruntime's tool
            for latency does not.
    """
    spent: list[list[float]] = [[] for _ in range(callers)]
    if warm:
        together = [threading.Thread(target=call) for _ in range(callers)]
        for thread in together:
            thread.start()
        for thread in together:
            thread.join()
    end = time.perf_counter() + seconds

    def caller(times: list[float]) -> None:
        while (start := time.perf_counter()) < end:
            call()
            times.append(1000 * (time.perf_counter() - start))

    begin = time.perf_counter()
    threads = [threading.Thread(target=caller, args=(times,)) for times in spent[1:]]
    for thread in threads:
        thread.start()
    caller(spent[0])
    for thread in threads:
        thread.join()
    every = np.concatenate([np.asarray(times) for times in spent])
    return {
        "median": float(np.median(every)),
        "mean": float(every.mean()),
        "throughput": len(every) / (time.perf_counter() - begin),
    }


if __name__ == "__main__":
    main()
