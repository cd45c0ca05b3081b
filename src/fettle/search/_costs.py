"""What pieces of a search cost, in seconds: from what such pieces took before, else from one try.

A step that took part in this study before costs what it took; a training, what an epoch of such
took, or an epoch estimated from a few timed steps. Where there is neither, nothing is said.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

from fettle.core.errors import FettleError
from fettle.core.plugin import Plugin
from fettle.core.recipe import parse_step

if TYPE_CHECKING:
    from fettle.search.workshop import Workshop

_BATCH = 64
_STEPS = 4  # timed; the first is thrown away
# quantization-aware steps over plain ones: 1.4 to 2.3 were measured
_HARDER = {"quantize.aware": 2.0}


class Costs:
    """Knows what stages took; `epoch` is the seconds of one plain epoch, None where unknown."""

    def __init__(self, events: Iterable[Mapping[str, Any]], epoch: float | None = None) -> None:
        self.epoch = epoch
        self._took: dict[str, list[float]] = defaultdict(list)
        self._rates: dict[str, list[float]] = defaultdict(list)
        self.learn(events)

    def learn(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Learn from the finished stages of a journal."""
        for event in events:
            if event.get("event") == "stage":
                self._learn(str(event["name"]), float(event["seconds"]))

    def of(self, step: Plugin) -> float | None:
        """Return the seconds of a step of a recipe; None where nothing like it is known."""
        same = self.named(str(step))
        if same is not None:
            return same
        name, epochs = step.name(), _epochs(step)
        if not epochs:
            return 0.0 if getattr(step, "final", False) else self.named(name)  # the export's part
        if self._rates[name]:
            return epochs * median(self._rates[name])
        return None if self.epoch is None else epochs * self.epoch * _HARDER.get(name, 1.0)

    def named(self, name: str) -> float | None:
        """Return what a stage of this name took, or else of this plug-in without training.

        An export's time holds all that was made on its way; the least is the export alone.
        """
        took = self._took[name]
        return (min(took) if name == "export" else median(took)) if took else None

    def _learn(self, line: str, seconds: float) -> None:
        self._took[line].append(seconds)
        if " " in line and "(" not in line:  # `lower for …`, `score select`
            self._took[line.partition(" ")[0]].append(seconds)
            return
        try:
            step = parse_step(line)
        except FettleError:
            return  # an export, a timing
        if epochs := _epochs(step):
            self._rates[step.name()].append(seconds / epochs)
        elif step.name() != line:
            self._took[step.name()].append(seconds)


def _epochs(step: Plugin) -> int:
    return int(getattr(step, "epochs", 0))


def epoch_seconds(workshop: Workshop) -> float | None:
    """Return what an epoch of distillation takes here, from a few timed steps.

    None without a torch module that is there, or without data to train it.
    """
    if workshop.source.is_onnx or workshop.source.plan or not workshop.task.size("train"):
        return None
    import torch

    from fettle.train import first_output, inputs_of

    task, module = workshop.task, workshop.module().train()
    took = []
    for batch in itertools.islice(task.epoch(0, 0, _BATCH), _STEPS):
        started = perf_counter()
        inputs = inputs_of(batch, task, torch.device("cpu"))
        with torch.no_grad():
            module(*inputs)  # what the teacher answers
        torch.autograd.backward(task.loss(first_output(module(*inputs)), batch))
        took.append(perf_counter() - started)
    return median(took[1:] or took) * task.steps(_BATCH) if took else None
