"""A realistic result, as `fettle demo --json` would write it: 8 recipes × 2 runtimes and torch."""

from __future__ import annotations

import copy
from typing import Any

# name, recipe, precision, size, speed over FP32, select top-1, stages
_RECIPES: list[tuple[str, str, str, int, float, float, list[tuple[str, float, bool]]]] = [
    ("FP32", "", "f32", 1_101_000, 1.0, 0.9870, [("export", 1.4, False)]),
    (
        "INT8 PTQ",
        "quantize.static",
        "int8",
        312_000,
        3.1,
        0.9835,
        [("quantize.static", 2.2, False), ("export", 1.6, False)],
    ),
    (
        "INT8 QAT",
        "quantize.aware(epochs=2)",
        "int8",
        312_000,
        3.15,
        0.9860,
        [("quantize.aware(epochs=2)", 14.8, False), ("export", 1.6, False)],
    ),
    (
        "pruned 70 %",
        "prune.channels(ratio=0.7)",
        "f32",
        338_000,
        2.1,
        0.9690,
        [("prune.channels(ratio=0.7)", 11.3, False), ("export", 1.1, False)],
    ),
    (
        "distilled ResNet-8",
        "distill.logits(student='cifar:resnet8', temperature=4)",
        "f32",
        316_000,
        2.6,
        0.9780,
        [
            ("distill.logits(student='cifar:resnet8', temperature=4)", 18.2, False),
            ("export", 0.9, False),
        ],
    ),
    ("BF16", "", "bf16", 1_101_000, 1.6, 0.9870, [("export", 1.4, True)]),
    (
        "distilled + QAT",
        "distill.logits(student='cifar:resnet8', temperature=4) > quantize.aware(epochs=2)",
        "int8",
        96_000,
        7.4,
        0.9770,
        [
            ("distill.logits(student='cifar:resnet8', temperature=4)", 18.2, True),
            ("quantize.aware(epochs=2)", 6.4, False),
            ("export", 1.0, False),
        ],
    ),
    (
        "pruned + QAT",
        "prune.channels(ratio=0.5) > quantize.aware(epochs=2)",
        "int8",
        128_000,
        5.2,
        0.9560,
        [
            ("prune.channels(ratio=0.5)", 9.7, False),
            ("quantize.aware(epochs=2)", 8.1, False),
            ("export", 1.1, False),
        ],
    ),
]
_FP32_MS = {"onnxruntime": 1.61, "openvino": 1.42}
_EAGER_MS = 5.3
_BASELINE = 0.9870


def sample_result() -> dict[str, Any]:
    """Return a fresh copy of a result that passed."""
    trials = [_torch()]
    for runtime in _FP32_MS:
        trials += [_row(recipe, runtime) for recipe in _RECIPES if _runs(recipe, runtime)]
    trials.append(_refused())
    best = copy.deepcopy(_find(trials, "distilled + QAT", "openvino"))
    best["metric"] |= {"value": 0.9733, "low": 0.9480, "high": 0.9884, "split": "test"}
    best["drop"] = {"value": 0.0067, "low": -0.0021, "high": 0.0155, "n": 450, "test": "tango"}
    best["bundle"] = "runs/demo/best"
    return {
        "schema": 1,
        "command": "fettle demo --out runs/demo",
        "created": "2026-11-22T15:00:00Z",
        "model": "cifar:resnet20",
        "data": "digits",
        "seconds": 123.4,
        "verdict": "pass",
        "verdict_text": "pass: top1 drops by +0.0067, bounds [-0.0021, +0.0155], budget 0.0200",
        "needed": None,
        "budget": {"metric": "top1", "max_drop": 0.02, "confidence": 0.95},
        "baseline": copy.deepcopy(_find(trials, "FP32", "pytorch")),
        "best": best,
        "frontier": [
            copy.deepcopy(_find(trials, name, "openvino"))
            for name in ("distilled + QAT", "INT8 QAT", "BF16")
        ],
        "trials": trials,
        "warning": None,
        "noise": {"value": 1.0, "low": 0.97, "high": 1.04},
        "machine": {
            "cpu": "AMD EPYC 9R14",
            "isa": ["avx2", "avx512f", "avx512_vnni"],
            "threads": 2,
            "runtimes": {"onnxruntime": "1.31.1", "openvino": "2026.4.1"},
            "versions": {"fettle": "0.1.0", "numpy": "2.4.6", "torch": "2.13.0"},
        },
        "fingerprints": {
            "train": "9f86d081884c7d65",
            "calibrate": "60303ae22b998861",
            "select": "fd61a03af4f77d87",
            "test": "a4e624d686e03ed2",
        },
    }


def open_result() -> dict[str, Any]:
    """Return a result that settles nothing."""
    result = sample_result()
    result["best"]["drop"] |= {"value": 0.0133, "low": 0.0011, "high": 0.0255}
    text = "inconclusive: top1 drops by +0.0133, bounds [+0.0011, +0.0255], budget 0.0200"
    return result | {"verdict": "inconclusive", "verdict_text": text, "needed": 1234}


def failed_result() -> dict[str, Any]:
    """Return a result past its budget."""
    result = sample_result()
    result["best"]["drop"] |= {"value": 0.0444, "low": 0.0301, "high": 0.0587}
    text = "fail: top1 drops by +0.0444, bounds [+0.0301, +0.0587], budget 0.0200"
    return result | {"verdict": "fail", "verdict_text": text}


def _find(rows: list[dict[str, Any]], name: str, runtime: str) -> dict[str, Any]:
    return next(row for row in rows if row["name"] == name and row["runtime"] == runtime)


def _runs(recipe: tuple[Any, ...], runtime: str) -> bool:
    return recipe[2] != "bf16" or runtime == "openvino"


def _row(recipe: tuple[Any, ...], runtime: str) -> dict[str, Any]:
    name, line, precision, size, speed, top1, stages = recipe
    fp32, cached = _FP32_MS[runtime], runtime != "onnxruntime"
    p50, best_fp32 = fp32 / speed, min(_FP32_MS.values())
    return {
        "recipe": f"{line} @ {runtime}".strip(),
        "name": name,
        "runtime": runtime,
        "precision": precision,
        "metric": _metric(top1),
        "latency_ms": _latency(p50, 1000 if name in ("FP32", "distilled + QAT") else 300),
        "throughput": 1000 / p50,
        "size_bytes": size,
        "peak_memory_bytes": 41_300_000,
        "macs": 2_560_000,
        "sparsity": 0.0,
        "drop": _drop(_BASELINE - top1),
        "speedup": {
            "vs_same_runtime_fp32": _ratio(fp32 / p50),
            "vs_best_fp32": _ratio(best_fp32 / p50),
            "vs_torch_eager": _ratio(_EAGER_MS / p50),
        },
        "stages": [
            {"name": stage, "seconds": seconds, "cached": cached or kept}
            for stage, seconds, kept in stages
        ]
        + [{"name": "measure", "seconds": 2.1, "cached": False}],
        "bundle": None,
        "refused": None,
        "lowering": [],
    }


def _torch() -> dict[str, Any]:
    row = _row(_RECIPES[0], "onnxruntime")
    row |= {"recipe": "@ pytorch", "runtime": "pytorch", "throughput": 1000 / _EAGER_MS}
    row["latency_ms"] = _latency(_EAGER_MS, 1000)
    row["speedup"] = {
        "vs_same_runtime_fp32": {"value": 1.0, "low": 1.0, "high": 1.0},
        "vs_best_fp32": _ratio(1.42 / _EAGER_MS),
        "vs_torch_eager": {"value": 1.0, "low": 1.0, "high": 1.0},
    }
    return row


def _refused() -> dict[str, Any]:
    return {
        "recipe": "graph.float16 @ onnxruntime",
        "name": "FP16",
        "runtime": "onnxruntime",
        "precision": "f16",
        "refused": "the CPU has no float16 kernels for Conv; use `--target cuda`",
    }


def _metric(top1: float) -> dict[str, Any]:
    half = 1.96 * (top1 * (1 - top1) / 450) ** 0.5
    return {
        "value": top1,
        "low": top1 - half,
        "high": min(top1 + half, 1.0),
        "n": 450,
        "split": "select",
    }


def _drop(value: float) -> dict[str, Any]:
    return {"value": value, "low": value - 0.006, "high": value + 0.006, "n": 450, "test": "tango"}


def _ratio(value: float) -> dict[str, float]:
    return {"value": value, "low": value * 0.95, "high": value * 1.05}


def _latency(p50: float, n: int) -> dict[str, Any]:
    return {
        "p50": p50,
        "p90": p50 * 1.12,
        "p95": p50 * 1.21,
        "p99": p50 * 1.6 if n >= 1000 else None,
        "mean": p50 * 1.05,
        "n": n,
        "batch": 1,
        "threads": 2,
    }
