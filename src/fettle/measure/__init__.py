"""Measure: numbers with units, intervals and sample counts, and the verdict's statistics.

Sizes and operation counts are exact; latencies are interleaved; quality is paired. SciPy is
imported where it is used: the process whose memory is measured imports this package too.
"""

from fettle.measure._interference import Interference, watched
from fettle.measure._matching import matched
from fettle.measure._metric import Artifact, Metric, ModuleSource
from fettle.measure._shapes import for_one_example
from fettle.measure._traffic import traffic_of
from fettle.measure.concurrency import Load, closed_loop
from fettle.measure.latency import (
    Disturbance,
    Plan,
    Ratio,
    Samples,
    Subject,
    Timing,
    differs,
    median_latency,
    noise,
    noise_in,
    ratio,
    summary,
    throughput,
    throughput_interval,
    time_interleaved,
    too_noisy,
    twin_of,
)
from fettle.measure.macs import LayerMacs, layer_macs, macs_of, parameters_of
from fettle.measure.memory import Footprint, peak_memory
from fettle.measure.noninferiority import drop_of, mean_score, proportion_interval, verdict_of
from fettle.measure.operators import operators_of
from fettle.measure.quality import (
    Agreement,
    agreement,
    fixed_batch,
    outputs_of,
    run_batch,
    scores_of,
)
from fettle.measure.roofline import precisions_of, shapes_of
from fettle.measure.scenarios import Offline, Stream, multi_stream, offline, single_stream
from fettle.measure.server_load import Pool, Search, Server, server
from fettle.measure.size import file_bytes, onnx_bytes
from fettle.measure.sparsity import TensorSparsity, sparsity_of, tensor_sparsity
from fettle.measure.startup import Startup, startup_of

__all__ = [
    "Agreement",
    "Artifact",
    "Disturbance",
    "Footprint",
    "Interference",
    "LayerMacs",
    "Load",
    "Metric",
    "ModuleSource",
    "Offline",
    "Plan",
    "Pool",
    "Ratio",
    "Samples",
    "Search",
    "Server",
    "Startup",
    "Stream",
    "Subject",
    "TensorSparsity",
    "Timing",
    "agreement",
    "closed_loop",
    "differs",
    "drop_of",
    "file_bytes",
    "fixed_batch",
    "for_one_example",
    "layer_macs",
    "macs_of",
    "matched",
    "mean_score",
    "median_latency",
    "multi_stream",
    "noise",
    "noise_in",
    "offline",
    "onnx_bytes",
    "operators_of",
    "outputs_of",
    "parameters_of",
    "peak_memory",
    "precisions_of",
    "proportion_interval",
    "ratio",
    "run_batch",
    "scores_of",
    "server",
    "shapes_of",
    "single_stream",
    "sparsity_of",
    "startup_of",
    "summary",
    "tensor_sparsity",
    "throughput",
    "throughput_interval",
    "time_interleaved",
    "too_noisy",
    "traffic_of",
    "twin_of",
    "verdict_of",
    "watched",
]
