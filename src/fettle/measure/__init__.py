"""Measure: numbers with units, intervals and sample counts, and the verdict's statistics.

Sizes and operation counts are exact; latencies are interleaved; quality is paired.
"""

from fettle.measure._metric import Artifact, Metric
from fettle.measure.latency import (
    Plan,
    Ratio,
    Samples,
    Subject,
    median_latency,
    noise,
    noise_in,
    ratio,
    summary,
    throughput,
    time_interleaved,
    too_noisy,
    twin_of,
)
from fettle.measure.noninferiority import drop_of, mean_score, proportion_interval, verdict_of
from fettle.measure.quality import Agreement, agreement, outputs_of, run_batch, scores_of
from fettle.measure.size import file_bytes, onnx_bytes

__all__ = [
    "Agreement",
    "Artifact",
    "Metric",
    "Plan",
    "Ratio",
    "Samples",
    "Subject",
    "agreement",
    "drop_of",
    "file_bytes",
    "mean_score",
    "median_latency",
    "noise",
    "noise_in",
    "onnx_bytes",
    "outputs_of",
    "proportion_interval",
    "ratio",
    "run_batch",
    "scores_of",
    "summary",
    "throughput",
    "time_interleaved",
    "too_noisy",
    "twin_of",
    "verdict_of",
]
