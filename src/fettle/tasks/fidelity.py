"""No labels, and outputs that rank no classes: how much of the original's signal is kept.

    score = 1 − min(1, ‖y − ŷ‖² / S),   S = mean over all examples of ‖y − ȳ‖²

y are the original's outputs for an example, ŷ the model's, and ȳ the original's mean outputs. The
signal S is what the outputs tell from example to example: a model that always answers ȳ keeps
nothing. With several outputs, the score is the mean of theirs, each against its own signal.

The mean score is 1 − noise / signal: `--max-drop 0.01` allows noise of a hundredth of the signal, a
signal-to-noise ratio of 20 dB; 0.001 are 30 dB, 0.1 are 10 dB. It serves for detection,
segmentation, audio, and for random weights, whose arg-max says little.

An example whose noise is larger than the signal counts as lost altogether: so scores lie in 0 … 1,
and the bound of the verdict holds also for what a rare example may do that wasn't seen. The price:
`--max-drop 0.01` needs at least 300 examples in `test`, as it does for accuracy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

import numpy as np

from fettle.core.arrays import Arrays, Batch, Split
from fettle.core.errors import ModelError
from fettle.tasks._named import pack
from fettle.tasks._scores import expect
from fettle.tasks._unlabelled import Unlabelled, check_answers

if TYPE_CHECKING:
    from torch import Tensor


class Fidelity(Unlabelled):
    """Outputs as the original's, whatever they are."""

    metric = "fidelity"
    gives_logits = False
    _signals: tuple[float, ...] = ()

    def answered(self, answers: Mapping[Split, Arrays]) -> Self:
        """Return the task with the original's outputs as labels.

        Raises:
            ModelError: they are not finite, none has a row for each example, or all are constant.
        """
        check_answers(answers)
        outputs = {split: _per_example(found) for split, found in answers.items()}
        labels = {split: _packed(arrays) for split, arrays in outputs.items()}
        first = next(iter(outputs.values()))[0]
        made = self._judged_by(labels, first.shape[1] if first.ndim == 2 else 0)
        made._signals = tuple(_signal(list(each)) for each in zip(*outputs.values(), strict=True))
        if not any(made._signals):
            raise ModelError(
                "the original model gives every example the same outputs, so there is no signal to"
                " keep; check its weights and the data"
            )
        return made

    def loss(self, outputs: Tensor, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
        """Return the first output's mean noise over its signal, as a scalar tensor."""
        import torch

        if self.needs_original:
            self._refuse()
        del label_smoothing
        wanted = torch.as_tensor(_unpacked(batch.targets)[0], dtype=outputs.dtype)
        squared = (outputs - wanted.to(outputs.device)).square().flatten(1).sum(dim=1)
        return squared.mean() / (self._signals[0] or 1.0)

    def score(self, outputs: Arrays, batch: Batch) -> np.ndarray:
        """Return 1 − min(1, noise / signal) of each example, the mean over its outputs, shape (n,).

        Raises:
            ModelError: the outputs are not as many as the original's, or of other shapes.
        """
        if self.needs_original:
            self._refuse()
        wanted = _unpacked(batch.targets)
        n = len(batch)
        found = [np.asarray(a) for a in outputs.values() if np.ndim(a) > 1 and len(a) == n]
        if len(found) < len(wanted):
            raise ModelError(
                f"{len(wanted)} outputs were expected, as the original has them, got {len(found)}"
            )
        kept = []
        for ours, theirs, signal in zip(found, wanted, self._signals, strict=False):
            expect(ours, theirs.shape, "a model that is to keep to the original")
            if signal:
                kept.append(1 - _lost(ours, theirs, signal))
        return np.asarray(np.mean(kept, axis=0))


def _lost(ours: np.ndarray, theirs: np.ndarray, signal: float) -> np.ndarray:
    """Return min(1, noise / signal) of each example; what is no number is lost, shape (n,)."""
    with np.errstate(all="ignore"):
        error = (ours.astype(np.float64) - theirs).reshape(len(theirs), -1)
        share = np.square(error).sum(axis=1) / signal
    return np.asarray(np.nan_to_num(share, nan=1.0, posinf=1.0).clip(0.0, 1.0))


def _signal(parts: list[np.ndarray]) -> float:
    """Return the mean over examples of ‖y − ȳ‖², y of one output in all splits."""
    flat = [part.reshape(len(part), -1) for part in parts]
    n = sum(map(len, flat))
    mean = sum(part.sum(axis=0, dtype=np.float64) for part in flat) / n
    return float(sum(np.square(part - mean).sum() for part in flat) / n)


def _per_example(outputs: Arrays) -> list[np.ndarray]:
    """Return the outputs that have a row for each example, in float32."""
    n = max((len(a) for a in outputs.values() if a.ndim), default=0)
    found = [np.asarray(a, np.float32) for a in outputs.values() if a.ndim > 1 and len(a) == n]
    if not found:
        shapes = {name: list(array.shape) for name, array in outputs.items()}
        raise ModelError(f"`fidelity` expects outputs of shape (examples, …), got {shapes}")
    return found


def _packed(arrays: list[np.ndarray]) -> np.ndarray:
    return arrays[0] if len(arrays) == 1 else pack({str(i): a for i, a in enumerate(arrays)})


def _unpacked(targets: np.ndarray) -> list[np.ndarray]:
    return [targets[name] for name in targets.dtype.names] if targets.dtype.names else [targets]
