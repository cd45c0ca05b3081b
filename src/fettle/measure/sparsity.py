"""Sparsity: the share of weights that are zero.

Without a sparse kernel, zeros make a file that compresses better, not a model that runs faster.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fettle.core.measurement import Measurement
from fettle.measure._graph import Weight, read, weights
from fettle.measure._metric import Artifact, Metric


@dataclass(frozen=True)
class TensorSparsity:
    """How many of a weight tensor's `size` numbers are zero."""

    name: str
    shape: tuple[int, ...]
    zeros: int
    size: int

    @property
    def share(self) -> float:
        """The share that is zero, 0 … 1."""
        return self.zeros / self.size


def tensor_sparsity(path: str | Path) -> list[TensorSparsity]:
    """Return the zeros of each weight tensor of two or more dimensions.

    A quantized number is zero when it equals its zero point.

    Raises:
        ModelError: no readable ONNX.
    """
    return [
        _of(w) for w in weights(read(path, with_data=True)) if len(w.tensor.dims) > 1 and w.size
    ]


def sparsity_of(path: str | Path) -> float:
    """Return the share of zeros over all weight tensors, 0 … 1; 0 when there are none.

    Raises:
        ModelError: no readable ONNX.
    """
    tensors = tensor_sparsity(path)
    return sum(t.zeros for t in tensors) / max(sum(t.size for t in tensors), 1)


@dataclass(frozen=True, kw_only=True)
class Sparsity(Metric):
    """Share of weights that are zero."""

    def measure(self, subject: Artifact) -> Measurement:
        """Count them."""
        return Measurement.exact("sparsity", sparsity_of(subject.path), "share", "neither")


def _of(weight: Weight) -> TensorSparsity:
    shape = tuple(weight.tensor.dims)
    return TensorSparsity(weight.name, shape, weight.zeros(), weight.size)
