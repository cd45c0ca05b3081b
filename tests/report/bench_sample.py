"""A benchmark as `fettle bench --json` prints it: two artifacts, three engines, two groups."""

from __future__ import annotations

from typing import Any

WHERE = {"batch": 1, "threads": 2, "concurrency": 1}


def row(subject: str, runtime: str, p50: float, **other: Any) -> dict[str, Any]:
    """Return a row that ran; `refused` makes it one that didn't."""
    times: dict[str, Any] = {"p50": p50, "p90": p50 * 2, "p95": p50 * 3, "p99": None, "mean": p50}
    bounds = {key: [0.9 * v, 1.1 * v] if v else None for key, v in times.items()}
    ran = other.get("refused") is None
    found = {
        "subject": subject,
        "runtime": runtime,
        "precision": "f32",
        **WHERE,
        "latency_ms": {**times, "intervals": bounds, "n": 240} if ran else None,
        "throughput": 1000 / p50 if ran else None,
        "size_bytes": 1_100_000,
        "peak_memory_bytes": None,
        "refused": None,
    }
    return {**found, **other}


def ratio(a: str, b: str, value: float, differs: bool = True, **where: int) -> dict[str, Any]:
    """Return time of `a` over time of `b`."""
    bounds = {"value": value, "low": value * 0.95, "high": value * 1.05}
    return {"a": a, "b": b, **bounds, "differs": differs, **WHERE, **where}


def bench_result() -> dict[str, Any]:
    """Return a whole result."""
    noise = {"value": 1.0, "low": 0.97, "high": 1.04, "warning": "the machine is noisy", **WHERE}
    ort, vino, torch = "m.onnx @ onnxruntime", "m.onnx @ openvino", "net @ pytorch"
    return {
        "rows": [
            row("m.onnx", "onnxruntime", 4.0, peak_memory_bytes=90_000_000),
            row("m.onnx", "openvino", 3.9, precision="int8", bound_ms=1.3, bound_fraction=1 / 3),
            row("net", "pytorch", 40.0),
            row("m.onnx", "absent", 1.0, refused="not <b>installed</b>", refused_kind="missing"),
            row("m.onnx", "onnxruntime", 20.0, batch=8),
            row("m.onnx", "openvino", 10.0, batch=8),
            row(
                "net", "pytorch", 1.0, batch=8, refused="fails at batch 8: no", refused_kind="model"
            ),
        ],
        "ratios": [
            ratio(ort, vino, 1.02, differs=False),
            ratio(ort, torch, 0.1),
            ratio(vino, torch, 0.1),
            ratio(ort, vino, 2.0, batch=8),
        ],
        "noise": noise,
        "noises": [noise],
        "interference": {"warning": None},
        "absent": {"tensorrt": "no GPU"},
        "machine": {"cpu": "a processor", "isa": ["avx2"], "threads": 2, "runtimes": {}},
    }
