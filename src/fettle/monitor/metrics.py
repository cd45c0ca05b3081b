"""Metrics of a server for Prometheus: Triton's names where it has them, our own for the rest.

A dashboard that was made for Triton shows a fettle server as it is. What Triton has no name for is
told as `fettle_*`: latency histograms by route, the sizes of batches, and how the log is doing.

Names: https://github.com/triton-inference-server/server/blob/main/docs/user_guide/metrics.md
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psutil

from fettle.core.arrays import Arrays
from fettle.monitor._exposition import CONTENT_TYPE, Family, Sample, exposition
from fettle.monitor.answered import Answered
from fettle.monitor.log import Counts
from fettle.monitor.prediction import OK, Prediction

__all__ = [
    "CONTENT_TYPE",
    "Family",
    "Latencies",
    "ModelNumbers",
    "exposition",
    "log_families",
    "machine_families",
    "model_families",
    "observer_families",
]

SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
           1.0, 2.5, 5.0, 10.0)  # fmt: skip
_ROWS = tuple(2**power for power in range(11))
_MOST_SERIES = 1000  # for who asks for models by made-up names
_NS_PER_US = 1000

_COUNTED = (
    ("nv_inference_request_success", ("inference_stats", "success", "count"),
     "Number of successful inference requests, all batch sizes"),
    ("nv_inference_count", ("inference_count",), "Number of inferences performed"),
    ("nv_inference_exec_count", ("execution_count",), "Number of model executions performed"),
)  # fmt: skip
_TIMED = (
    ("request", "success", "Cumulative inference request duration in microseconds"),
    ("queue", "queue", "Cumulative inference queuing duration in microseconds"),
    ("compute_input", "compute_input", "Cumulative compute input duration in microseconds"),
    ("compute_infer", "compute_infer", "Cumulative compute inference duration in microseconds"),
    ("compute_output", "compute_output", "Cumulative compute output duration in microseconds"),
)


@dataclass(frozen=True)
class ModelNumbers:
    """What one version of a model has counted.

    Attributes:
        statistics: its entry in `model_stats`, as the protocol's statistics extension tells it.
        pending: requests that wait to be computed, now.
        failures: by reason; empty counts all that failed under "OTHER".
        ready: whether it answers.
    """

    statistics: Mapping[str, Any]
    pending: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    ready: bool = True

    @property
    def labels(self) -> dict[str, str]:
        """Triton's labels of it."""
        return {"model": self.statistics["name"], "version": self.statistics["version"]}


def model_families(models: Sequence[ModelNumbers]) -> list[Family]:
    """Return the families of all models, Triton's first."""
    families = [_counted(models, *entry) for entry in _COUNTED]
    families.insert(1, _failures(models))
    families += [_timed(models, *entry) for entry in _TIMED]
    pending = Family(
        "nv_inference_pending_request_count",
        "gauge",
        "Instantaneous number of pending requests awaiting execution per-model",
    )
    ready = Family("fettle_model_ready", "gauge", "Whether the model answers requests")
    for model in models:
        pending.add(model.pending, **model.labels)
        ready.add(model.ready, **model.labels)
    return [*families, pending, ready, _batches(models)]


def machine_families() -> list[Family]:
    """Return Triton's families of the machine that the server runs on."""
    memory = psutil.virtual_memory()
    gauges = (
        ("nv_cpu_utilization", "CPU utilization rate [0.0 - 1.0]", psutil.cpu_percent() / 100),
        ("nv_cpu_memory_total_bytes", "CPU total memory (RAM), in bytes", memory.total),
        ("nv_cpu_memory_used_bytes", "CPU used memory (RAM), in bytes", memory.used),
    )
    return [Family(name, "gauge", text, [Sample(value, {})]) for name, text, value in gauges]


def log_families(counts: Counts) -> list[Family]:
    """Return how the prediction log is doing."""
    written = Family("fettle_log_written_total", "counter", "Predictions and labels in the log")
    written.add(counts.written)
    waiting = Family("fettle_log_waiting", "gauge", "Predictions and labels still to be written")
    waiting.add(counts.waiting)
    trouble = Family("fettle_log_trouble", "gauge", "Whether the log can't be written now")
    trouble.add(bool(counts.trouble))
    lost = Family("fettle_log_lost_total", "counter", "What the log doesn't hold, by kind")
    for kind, count in sorted(counts.lost.items()):
        lost.add(count, kind=kind)
    return [written, waiting, trouble, lost]


def observer_families(
    dropped: Mapping[str, int], failed: Mapping[str, int], capsules: Mapping[str, int]
) -> list[Family]:
    """Return what observers of the service missed or failed on, and what became of capsules.

    Args:
        dropped: predictions that an observer was too slow for, by its name.
        failed: predictions on which it raised, by its name.
        capsules: failed predictions by what became of them; see `Capsules.counts`.
    """
    told = (
        ("fettle_observer_dropped_total", "observer", dropped,
         "Predictions that an observer was too slow for"),
        ("fettle_observer_failed_total", "observer", failed,
         "Predictions on which an observer failed"),
        ("fettle_capsules_total", "outcome", capsules,
         "Failed predictions by what became of their capsules"),
    )  # fmt: skip
    families = []
    for name, label, counts, text in told:
        samples = [Sample(count, {label: key}) for key, count in sorted(counts.items())]
        families.append(Family(name, "counter", text, samples))
    return families


class Latencies:
    """Histograms of latency by model, version, route and status; an observer of a service.

    It needs no channel of the service's: `tell` takes a microsecond.

    Attributes:
        dropped, failed: none ever.
    """

    dropped = failed = 0

    def __init__(self) -> None:
        self._series: dict[tuple[str, str, str, str], tuple[_Histogram, _Histogram]] = {}

    def seen(self, prediction: Prediction, inputs: Arrays, outputs: Arrays | None) -> None:
        """Count one prediction."""
        del inputs, outputs
        p = prediction
        total, queue = self._of((p.model, p.version, p.route, p.status))
        total.observe(p.total_us / 1e6)
        queue.observe(p.queue_us / 1e6)

    def tell(self, seen: Answered) -> None:
        """Count what a service saw."""
        status = type(seen.error).__name__ if seen.error else OK
        total, queue = self._of((seen.model, seen.version, seen.route, status))
        total.observe(seen.total_s)
        queue.observe(seen.timing[0])

    def close(self, seconds: float = 0.0) -> None:
        """Nothing is left to be done."""
        del seconds

    def families(self) -> list[Family]:
        """Return the histograms."""
        total = Family("fettle_request_duration_seconds", "histogram", "From first byte to answer")
        queue = Family("fettle_queue_duration_seconds", "histogram", "Waiting to be computed")
        for values, (totals, queues) in list(self._series.items()):
            labels = dict(zip(("model", "version", "route", "status"), values, strict=True))
            total.samples.extend(totals.samples(labels))
            queue.samples.extend(queues.samples(labels))
        return [total, queue]

    def _of(self, values: tuple[str, str, str, str]) -> tuple[_Histogram, _Histogram]:
        found = self._series.get(values)
        if found is None:
            if len(self._series) >= _MOST_SERIES:
                values = ("(others)", "", *values[2:])
            new = (_Histogram(SECONDS), _Histogram(SECONDS))
            found = self._series.setdefault(values, new)
        return found


class _Histogram:
    """Counts by upper bound; one thread observes, others may read."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        self._counts[bisect_left(self._bounds, value)] += times
        self._sum += value * times

    def samples(self, labels: Mapping[str, str]) -> list[Sample]:
        upto = list(itertools.accumulate(self._counts))
        bounds = [*(f"{bound:g}" for bound in self._bounds), "+Inf"]
        found = [
            Sample(count, {**labels, "le": bound}, "_bucket")
            for bound, count in zip(bounds, upto, strict=True)
        ]
        return [*found, Sample(self._sum, labels, "_sum"), Sample(upto[-1], labels, "_count")]


def _counted(models: Iterable[ModelNumbers], name: str, path: Sequence[str], text: str) -> Family:
    family = Family(name, "counter", text)
    for model in models:
        value: Any = model.statistics
        for step in path:
            value = value[step]
        family.add(value, **model.labels)
    return family


def _failures(models: Iterable[ModelNumbers]) -> Family:
    family = Family(
        "nv_inference_request_failure",
        "counter",
        "Number of failed inference requests, all batch sizes",
    )
    for model in models:
        count = model.statistics["inference_stats"]["fail"]["count"]
        for reason, failed in (model.failures or {"OTHER": count}).items():
            family.add(failed, **model.labels, reason=reason)
    return family


def _timed(models: Iterable[ModelNumbers], name: str, key: str, text: str) -> Family:
    family = Family(f"nv_inference_{name}_duration_us", "counter", text)
    for model in models:
        ns = model.statistics["inference_stats"][key]["ns"]
        family.add(ns // _NS_PER_US, **model.labels)
    return family


def _batches(models: Iterable[ModelNumbers]) -> Family:
    family = Family("fettle_batch_size", "histogram", "Rows of each run of the engine")
    for model in models:
        sizes = _Histogram(_ROWS)
        for batch in model.statistics["batch_stats"]:
            sizes.observe(batch["batch_size"], batch["compute_infer"]["count"])
        family.samples.extend(sizes.samples(model.labels))
    return family
