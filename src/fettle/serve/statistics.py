"""What a model has done so far, counted as Triton counts it.

A request succeeds or fails; its time divides into waiting in the queue and computing. An execution
is one run of the engine for a batch of requests. Parsing and writing are the protocol's: Triton's
`compute_input` and `compute_output`, the copies around a run, are part of the run here.

Specification: the statistics extension of Triton's protocol (server/docs/protocol). Durations are
in nanoseconds there, as here.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from fettle.serve.batcher import Execution, Timing

_NS = 1_000_000_000


@dataclass
class Spent:
    """How often something was done, and how long it took in all, in nanoseconds."""

    count: int = 0
    ns: int = 0

    def add(self, seconds: float, times: int = 1) -> None:
        """Count it."""
        self.count += times
        self.ns += int(seconds * _NS)

    def to_json(self) -> dict[str, int]:
        """Return the protocol's form."""
        return {"count": self.count, "ns": self.ns}


@dataclass
class Statistics:
    """The counters of one version of a model; all are told on the event loop.

    Attributes:
        last_inference_ms: when a request was last answered, in milliseconds of the epoch.
        inferences: rows that were answered.
        executions: runs of the engine.
        success, fail, queue, compute: how many requests, and their times.
        batches: runs by the number of their rows.
    """

    last_inference_ms: int = 0
    inferences: int = 0
    executions: int = 0
    success: Spent = field(default_factory=Spent)
    fail: Spent = field(default_factory=Spent)
    queue: Spent = field(default_factory=Spent)
    compute: Spent = field(default_factory=Spent)
    batches: defaultdict[int, Spent] = field(default_factory=lambda: defaultdict(Spent))

    def executed(self, execution: Execution) -> None:
        """Count one run of the engine."""
        self.executions += 1
        self.batches[execution.rows].add(execution.compute_s)

    def succeeded(self, rows: int, timing: Timing, seconds: float) -> None:
        """Count an answered request of `rows`, which took `seconds` in all."""
        self.last_inference_ms = time.time_ns() // 1_000_000
        self.inferences += rows
        self.success.add(seconds)
        self.queue.add(timing.queue_s)
        self.compute.add(timing.compute_s)

    def failed(self, seconds: float) -> None:
        """Count a request that was refused or that failed after `seconds`."""
        self.fail.add(seconds)

    def to_json(self, name: str, version: str) -> dict[str, Any]:
        """Return one entry of the protocol's `model_stats`."""
        nothing = Spent().to_json()
        return {
            "name": name,
            "version": version,
            "last_inference": self.last_inference_ms,
            "inference_count": self.inferences,
            "execution_count": self.executions,
            "inference_stats": {
                "success": self.success.to_json(),
                "fail": self.fail.to_json(),
                "queue": self.queue.to_json(),
                "compute_input": {**nothing, "count": self.compute.count},
                "compute_infer": self.compute.to_json(),
                "compute_output": {**nothing, "count": self.compute.count},
                "cache_hit": nothing,
                "cache_miss": nothing,
            },
            "batch_stats": [_batch(rows, self.batches[rows]) for rows in sorted(self.batches)],
        }


def _batch(rows: int, spent: Spent) -> dict[str, Any]:
    around = {"count": spent.count, "ns": 0}
    return {
        "batch_size": rows,
        "compute_input": around,
        "compute_infer": spent.to_json(),
        "compute_output": around,
    }
