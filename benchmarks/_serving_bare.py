"""The model without a server: onnxruntime with its defaults, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

BATCHES = (1, 4, 8, 16, 32, 64)


def run(path: Path, seconds: float) -> dict[str, Any]:
    """Return the median milliseconds of one example, and the best rows a second over batches."""
    command = [sys.executable, __file__, str(path), str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure in this process."""
    import onnxruntime as ort

    path, seconds = sys.argv[1], float(sys.argv[2])
    p50 = 1000 * float(np.median(_calls(_session(ort, path, 0), 1, seconds)[0]))
    best: dict[str, Any] = {"throughput": 0.0}
    for callers, threads in ((1, 0), (os.cpu_count() or 1, 1)):
        session = _session(ort, path, threads)
        for batch in BATCHES:
            _, rate = _calls(session, batch, seconds / len(BATCHES), callers)
            if rate > best["throughput"]:
                best = {"throughput": rate, "batch": batch, "callers": callers}
    print(json.dumps({"p50": p50, **best}))


def _session(ort: Any, path: str, threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _calls(session: Any, batch: int, seconds: float, callers: int = 1) -> tuple[list[float], float]:
    """Return the seconds of each call, and the rows a second of all callers together."""
    spec = session.get_inputs()[0]
    x = np.random.default_rng(0).random((batch, *spec.shape[1:]), dtype=np.float32)
    session.run(None, {spec.name: x})
    times: list[float] = []
    end = time.perf_counter() + seconds

    def caller() -> None:
        while (start := time.perf_counter()) < end:
            session.run(None, {spec.name: x})
            times.append(time.perf_counter() - start)

    begin = time.perf_counter()
    threads = [threading.Thread(target=caller) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times, batch * len(times) / (time.perf_counter() - begin)


if __name__ == "__main__":
    main()
