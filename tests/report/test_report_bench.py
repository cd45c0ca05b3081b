from __future__ import annotations

from fettle.report import bench_table


def row(runtime, p50, refused=None):
    times = {"p50": p50, "p90": p50 * 2, "p95": p50 * 3, "p99": None, "mean": p50}
    return {
        "subject": "model.onnx",
        "runtime": runtime,
        "precision": "f32",
        "batch": 1,
        "threads": 2,
        "latency_ms": None if refused else times,
        "throughput": 1000 / p50,
        "size_bytes": 1_100_000,
        "peak_memory_bytes": None,
        "refused": refused,
    }


def test_the_fastest_comes_first_with_its_lead():
    noise = {"value": 1.0, "low": 0.97, "high": 1.04, "warning": "noisy"}
    rows = [row("slow", 4.0), row("fast", 1.25), row("absent", 1.0, "not installed")]
    lines = bench_table({"rows": rows, "noise": noise}).splitlines()
    expected = "model.onnx fast f32 1 2 1.25 2.5 3.75 – 1.25 800 1.10 – 3.20"
    assert " ".join(lines[1].split()) == expected
    assert lines[2].split()[-1] == "1.00"
    assert lines[3] == "refused: model.onnx @ absent: not installed"
    assert lines[4:] == [
        "noise floor: an artifact against itself gives 1.00× [0.97, 1.04]",
        "noisy",
    ]
