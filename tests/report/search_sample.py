"""How a search went, as `search` holds it in a result, made up."""

from __future__ import annotations

from typing import Any


def search_sample(layers: int = 40) -> dict[str, Any]:
    """Return a search with as many layers, a third of which are gone."""
    return {
        "stopped": "the time limit of 1200 s was reached",
        "objective": "latency",
        "time_limit": 1200.0,
        "looks": [],
        "refused": [],
        "explanation": {
            "why": [
                "The winner takes 0.31 ms a request and the untouched model 2.55 ms: 8.2 times.",
                "13 of 40 layers are gone, and with them 33% of the time by layer.",
            ],
            "before": {"recipe": "@ openvino", "runtime": "openvino", "precision": "f32"},
            "after": {"recipe": "…", "runtime": "onnxruntime", "precision": "int8"},
            "layers": [_layer(i) for i in range(layers)],
            "stages": [
                _stage("prune.blocks(ratio=0.33, epochs=0)", 0.71, 0.22),
                _stage("distill.logits(epochs=9)", 0.92, -0.21),
                _stage("quantize.static", 0.915, 0.005),
            ],
            "rejected": [
                {"recipe": "quantize.static @ openvino", "why": "slower", "ms": 0.9, "drop": 0.001,
                 "promise": 0.99, "text": "2.90 times the winner's latency"},
                {"recipe": "prune.blocks(ratio=0.8) > distill.logits(epochs=1) > quantize.static",
                 "why": "rung 1", "text": "went no further than rung 1, having lost 12.00 pp",
                 "ms": 0.2, "drop": 0.12, "promise": None},
                {"recipe": "prune.heads", "why": "refused", "text": "no attention <b>heads</b>",
                 "ms": None, "drop": None, "promise": None},
            ],
            "unknown": {},
        },
    }  # fmt: skip


def _layer(i: int) -> dict[str, Any]:
    gone = i % 3 == 1
    return {
        "layer": f"layer{i // 12 + 1}.{i % 12}.conv1",
        "op": "Conv",
        "before_ms": 0.05 + 0.001 * (7 * i % 40),
        "after_ms": None if gone else 0.01,
        "before_precision": "f32",
        "after_precision": "" if gone else "int8",
        "before_macs": 1000,
        "after_macs": 0 if gone else 1000,
    }


def _stage(name: str, score: float, lost: float) -> dict[str, Any]:
    return {"stage": name, "score": score, "lost": lost, "drop": 0.93 - score, "n": 2000}
