"""Static post-training quantization: int8 weights and activations, ranges from calibration.

What it does: folds batch norms, observes every activation on the calibration split, and writes
the symmetric int8 master (see `_quantizer`), which runs as true INT8 on every engine.

When to use it: first. It takes seconds and no labels. `leave` names layers that lose too much.

Expected effect: a quarter of the size, 2–4 × the speed with VNNI and more with AMX, 0–1 point
lost; small and depthwise nets lose more: then `quantize.aware`.

Papers: Jacob et al. 2018 (arXiv 1712.05877); Nagel et al. 2021 (arXiv 2106.08295).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import nn

from fettle.compress._technique import Technique, example_tensors
from fettle.compress.quantize import _pt2e
from fettle.core.arrays import Arrays
from fettle.core.knobs import Choice, Range, Text
from fettle.core.progress import Bar
from fettle.core.spread import watched
from fettle.tasks import Task


@dataclass(frozen=True, kw_only=True)
class Static(Technique):
    """Post-training quantization with calibrated activation ranges."""

    final = True

    calibrator: Annotated[
        str, Choice("mse", "minmax"), "range of an activation: least squared error, or extremes"
    ] = "mse"
    samples: Annotated[int, Range(1, 100_000, "examples"), "calibration examples, at most"] = 256
    batch_size: Annotated[int, Range(1, 4096, "examples"), "examples a calibration batch"] = 32
    leave: Annotated[
        str, Text("paths of modules, with commas and `*`"), "layers that stay in floating point"
    ] = ""

    def apply(self, model: nn.Module, task: Task) -> nn.Module:
        """Return the converted graph."""
        prepared = _pt2e.prepare(model, example_tensors(task), self.calibrator, self.leave)
        total = min(self.samples, task.size("calibrate"))
        with self.context.progress.bar("calibrate", total) as bar:
            batches = watched(self._batches(task, total, bar), self.context.progress)
            _pt2e.calibrate(prepared, (tuple(map(torch.from_numpy, b.values())) for b in batches))
        return _pt2e.convert(prepared)

    def _batches(self, task: Task, total: int, bar: Bar) -> Iterator[Arrays]:
        """Yield inputs, of `total` examples or up to a batch more."""
        seen = 0
        for batch in task.batches("calibrate", self.batch_size):
            if seen >= total:
                return
            yield batch.inputs
            seen += len(batch)
            bar.step(amount=len(batch))
