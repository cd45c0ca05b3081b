"""Sensitivity: what one change alone does to a model's outputs.

    KL     mean over examples of Σ_c p_c (log p_c − log q_c), for logits of classes
    NMSE   Σ (y − ŷ)² / Σ y², for all other outputs

p and y are the untouched model's, q and ŷ those with the change made. Examples come from
`calibrate`; labels have no part in it.

Of int8 it is *one layer alone*, all others in float, rather than one layer left out of an int8
model: to second order, both distances are sums of what the layers do (Dong et al., HAWQ-V2, 2020,
arXiv 1911.03852; Cai et al., ZeroQ, 2020, arXiv 2001.00281), and alone a layer's part is seen
directly, where the other way it is the small difference of two large numbers. Every part is kept in
the study's store as soon as it is known, so that nothing is lost when the time is up.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fettle.core.arrays import Arrays
from fettle.core.errors import DataError, FettleError
from fettle.core.hashing import fingerprint
from fettle.core.shelf import PASSES, RUNTIMES
from fettle.measure import outputs_of
from fettle.search.workshop import Workshop
from fettle.tasks import Classification, Task

if TYPE_CHECKING:
    from fettle.compress.prune.allocated import Parts
    from fettle.graph.static_int8 import StaticInt8

SAMPLES = 128
_BATCH = 64
_TRIED = 3  # items, before it is told how long all will take


class TooLong(Exception):
    """All parts would take longer than was allowed; those that are known are kept."""

    def __init__(self, what: str, seconds: float) -> None:
        super().__init__(f"how much {what} matters would take {seconds:.0f} s to find out")


def kl(reference: np.ndarray, outputs: np.ndarray) -> float:
    """Return the mean KL divergence of two logits (n, …, classes), in nats; NaN counts as infinite.

    Raises:
        DataError: the shapes differ.
    """
    _check_alike(reference, outputs)
    with np.errstate(invalid="ignore"):
        log_p, log_q = _log_softmax(reference), _log_softmax(outputs)
        found = float((np.exp(log_p) * (log_p - log_q)).sum(-1).mean())
    return max(found, 0.0) if math.isfinite(found) else math.inf


def nmse(reference: np.ndarray, outputs: np.ndarray) -> float:
    """Return the squared error over the reference's squares; NaN counts as infinite.

    Raises:
        DataError: the shapes differ.
    """
    _check_alike(reference, outputs)
    y, found = reference.astype(np.float64), outputs.astype(np.float64)
    error, power = float(np.square(found - y).sum()), float(np.square(y).sum())
    if not math.isfinite(error):
        return math.inf
    return error / power if power else (math.inf if error else 0.0)


def damage(task: Task, reference: Arrays, outputs: Arrays) -> float:
    """Return the KL of a classifier's first output, or else the mean NMSE of all outputs."""
    if isinstance(task, Classification):
        name = next(iter(reference))
        return kl(reference[name], outputs[name])
    return float(np.mean([nmse(array, outputs[name]) for name, array in reference.items()]))


class Sensitivity:
    """Measures, once for each study, what single changes of a workshop's source do.

    Args:
        workshop: whose source, task and store.
        samples: examples of `calibrate`, at most.
        seconds: what each kind of change may take, unless it is known already.
    """

    def __init__(
        self, workshop: Workshop, samples: int = SAMPLES, seconds: float = math.inf
    ) -> None:
        self.workshop, self.task = workshop, workshop.task
        self.samples = min(samples, self.task.size("calibrate"))
        self.seconds = seconds

    def of_int8(self, model: Path, key: str) -> dict[str, float]:
        """Return the damage of each layer of an ONNX file in int8 alone, by its node's name.

        Args:
            model: in float.
            key: what identifies its contents.

        Raises:
            ModelError: there is nothing to quantize in it.
            TooLong: as it says.
        """
        work = _Quantized(model, self.task, self.samples, self._pass())
        about = ["int8", key, work.quantize.values()]
        return self._each("layers in int8", about, lambda: work.layers, work.damage)

    def of_widths(self, parts: Parts, shares: Sequence[float]) -> dict[str, dict[float, float]]:
        """Return the damage of each group of channels at each share kept, by its root.

        Groups whose channels can't be removed are left out.

        Raises:
            TooLong: as it says.
        """
        work = _Removed(parts, self.task, self.samples)

        def names() -> list[str]:
            return [f"{root}={share}" for root in parts.narrowable() for share in shares]

        def measure(name: str) -> float:
            root, _, share = name.rpartition("=")
            return work.damage({root: float(share)}, ())

        found: dict[str, dict[float, float]] = {}
        for name, value in self._each("widths", self._about(parts, shares), names, measure).items():
            root, _, share = name.rpartition("=")
            found.setdefault(root, {})[float(share)] = value
        return found

    def of_blocks(self, parts: Parts) -> dict[str, float]:
        """Return the damage of leaving out each removable block, by its path.

        Raises:
            TooLong: as it says.
        """
        work = _Removed(parts, self.task, self.samples)
        return self._each(
            "blocks",
            self._about(parts, ()),
            lambda: list(parts.blocks),
            lambda path: work.damage({}, (path,)),
        )

    def _pass(self) -> StaticInt8:
        found = PASSES.make("graph.static_int8", samples=max(self.samples, 1))
        made: StaticInt8 = found.within(self.workshop.context)  # type: ignore[attr-defined]
        return made

    def _about(self, parts: Parts, shares: Sequence[float]) -> list[Any]:
        return ["removed", self.workshop.key(), list(shares), parts.round_to]

    def _each(
        self,
        what: str,
        about: Sequence[Any],
        names: Callable[[], Sequence[str]],
        measure: Callable[[str], float],
    ) -> dict[str, float]:
        """Return the damage by name; each is looked up, or measured and kept."""
        store, context = self.workshop.store, self.workshop.context
        own = [what, *about, self.samples, self.task.fingerprint("calibrate"), context.seed]
        listed = store.value(fingerprint(own), f"list {what}", lambda: list(names()))[0]
        keys = {name: fingerprint([*own, name]) for name in listed}
        done = sum(store.has(key) for key in keys.values())
        pace = _Pace(what, len(keys) - done, self.seconds)
        found: dict[str, float] = {}
        with context.progress.bar(f"how much {what} matter", len(keys), done) as bar:
            for name, key in keys.items():
                known = store.has(key)
                if not known:
                    pace.check()
                value = store.value(key, f"{what}: {name}", lambda n=name: _told(measure(n)))[0]  # type: ignore[misc]
                found[name] = math.inf if value is None else float(value)
                if not known:
                    bar.step(name)
        return found


class _Pace:
    """Stops work of many alike items that will take longer than allowed."""

    def __init__(self, what: str, items: int, seconds: float) -> None:
        self.what, self.items, self.seconds = what, items, seconds
        self.started, self.done = time.monotonic(), 0

    def check(self) -> None:
        spent = time.monotonic() - self.started
        if self.done >= _TRIED and spent / self.done * self.items > self.seconds:
            raise TooLong(self.what, spent / self.done * self.items)
        self.done += 1


class _Quantized:
    """A float ONNX file, of which any layers are put into int8; calibrated when first asked for."""

    def __init__(self, model: Path, task: Task, samples: int, quantize: StaticInt8) -> None:
        self.model, self.task, self.samples = model, task, samples
        self.quantize = quantize
        self.runtime = RUNTIMES.make("onnxruntime")

    @cached_property
    def variants(self) -> Any:
        import onnx_ir as ir

        return self.quantize.variants(ir.load(self.model), self.task)

    @property
    def layers(self) -> Sequence[str]:
        found: Sequence[str] = self.variants.layers
        return found

    @cached_property
    def reference(self) -> Arrays:
        return self._outputs(self.model)

    def damage(self, layer: str) -> float:
        import onnx_ir as ir

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            beside = "model.onnx.data" if _is_large(self.model) else None
            ir.save(self.variants.only([layer]), path, external_data=beside)
            return damage(self.task, self.reference, self._outputs(path))

    def _outputs(self, path: Path) -> Arrays:
        session = self.runtime.build(path)  # type: ignore[attr-defined]
        try:
            return outputs_of(session, self.task, "calibrate", _BATCH, self.samples)
        finally:
            session.close()


class _Removed:
    """A torch module of which any parts are taken away."""

    def __init__(self, parts: Parts, task: Task, samples: int) -> None:
        self.parts, self.task, self.samples = parts, task, samples

    @cached_property
    def reference(self) -> Arrays:
        return self._outputs(self.parts.model)

    def damage(self, shares: Mapping[str, float], blocks: Sequence[str]) -> float:
        try:
            found = self._outputs(self.parts.without(shares, blocks))
        except FettleError:
            return math.inf
        return damage(self.task, self.reference, found)

    def _outputs(self, module: Any) -> Arrays:
        import torch

        from fettle.train import device_of, first_output, inputs_of

        found, left = [], self.samples
        with torch.inference_mode():
            for batch in self.task.batches("calibrate", _BATCH):
                outputs = first_output(module(*inputs_of(batch, self.task, device_of(module))))
                found.append(outputs[:left].float().cpu().numpy())
                left -= len(batch)
                if left <= 0:
                    break
        return {"outputs": np.concatenate(found)}


def _is_large(model: Path) -> bool:
    from fettle.models import onnx_files

    return len(onnx_files(model)) > 1


def _told(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _check_alike(reference: np.ndarray, outputs: np.ndarray) -> None:
    if reference.shape != outputs.shape or not reference.size:
        raise DataError(
            "two outputs of one shape, not empty, were expected,"
            f" got {list(reference.shape)} and {list(outputs.shape)}"
        )


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    found: np.ndarray = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return found
