"""Saturation: what an INT8 model computes wrongly on an x86 processor without VNNI.

Such a processor (AVX2, or AVX-512 before Cascade Lake) multiplies uint8 by int8 with `vpmaddubsw`,
which sums neighbouring products in pairs in 16 bits: 255 · 127 · 2 = 64770 is past 32767, and the
sum is silently cut. With VNNI, AMX, or Arm's dot product nothing is cut, and none of this matters.

Here the artifact runs twice on real inputs: once as the specification says, and once with each
8-bit layer's sums cut as such a processor would. Told are the share of pairs that are cut, how far
each layer's output moves, and how often the answer changes. Weights of 7 bits
(`graph.lower_ort_x86_7bit`) can't saturate: there the share is exactly 0.

Who is whose neighbour, and what is exact, was read in onnxruntime's kernels (MLAS, main branch of
2026; amd64/QgemmU8S8KernelAvx2.asm, ConvSymKernelAvx2.asm, qdwconv_avx2.cpp and qlinearconv.cc):

- Along the sum, numbers are packed by fours, so that 0 meets 1 and 2 meets 3. A convolution sums
  over kernel positions first and channels last: neighbours are channels at one position, and with
  an odd number of channels also the last of one position and the first of the next.
- A depthwise convolution of one output a channel is multiplied in 16 bits and added in 32: exact.
  With several outputs a channel it is a product of matrices, whose neighbours are positions.
- Weights of uint8 are widened to 16 bits before they are multiplied: exact.
- int8 activations are shifted by 128 before such a layer is fused.

Caveats. Recurrent and fused attention operators keep their integers to themselves and are listed as
`unchecked`. On a processor without VNNI, operators such as MatMulInteger saturate in the reference
too. OpenVINO's kernels (oneDNN) are others: there the count is a hint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from fettle.core.arrays import Arrays, rows
from fettle.core.errors import DataError
from fettle.measure._graph import find_model, read
from fettle.measure._layers8 import closed_layers, layers8, without_q_operators
from fettle.measure._saturating import Seen, Summing
from fettle.measure._walk import Walk
from fettle.runtimes import lowered

_MOST = 1_000_000_000  # pairs computed for one layer and batch: some 5 seconds


@dataclass(frozen=True)
class LayerSaturation:
    """Saturation in one layer.

    Attributes:
        name: of the node, or of its output.
        op: the operator.
        share: of the pairs of products that were cut.
        touched: share of the sums with at least one pair cut.
        change: root mean square of the output's change, over that of the output.
        sums: how many sums were looked at.
        of: how many there are; more than `sums` where only a sample was looked at.
    """

    name: str
    op: str
    share: float
    touched: float
    change: float
    sums: int
    of: int


@dataclass(frozen=True)
class Saturation:
    """Saturation in a whole model.

    Attributes:
        layers: those with 8-bit weights, in order of execution.
        share: of all pairs of products that were cut.
        change: root mean square of the first output's change over that of the output, when every
            layer saturates and feeds the next; None where a layer was only sampled.
        agreement: share of examples whose largest output stays the same, likewise.
        n: how many examples were run.
        unchecked: 8-bit layers whose integers can't be reached.
    """

    layers: tuple[LayerSaturation, ...]
    share: float
    change: float | None
    agreement: float | None
    n: int
    unchecked: tuple[str, ...] = field(default=())

    @property
    def warning(self) -> str | None:
        """What to do about it, in one sentence, or None when nothing saturates."""
        if not self.share:
            return None
        worst = max(self.layers, key=lambda layer: layer.change)
        kept = "" if self.agreement is None else f", top-1 agreement {self.agreement:.1%}"
        return (
            f"without VNNI {100 * self.share:.3g}% of the sums of two products saturate{kept};"
            f" worst is `{worst.name}`, whose output moves by {worst.change:.1%};"
            " use `graph.lower_ort_x86_7bit` there"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {**asdict(self), "warning": self.warning}


def saturation_of(
    path: str | Path,
    inputs: Arrays,
    lowering: Sequence[str] = (),
    batch: int = 4,
    most: int = _MOST,
) -> Saturation:
    """Emulate 16-bit saturation in every 8-bit layer of an ONNX file or a bundle's model.

    Args:
        path: the file or the bundle.
        inputs: real examples by input name, batch first; a few suffice.
        lowering: graph passes that a session would apply first.
        batch: examples at a time, where the graph leaves that free.
        most: pairs computed for one layer and batch; past that, sums are sampled.

    Raises:
        ModelError: no readable ONNX, or onnxruntime refuses it.
        DataError: no examples, or fewer than the graph's fixed batch.
    """
    model = without_q_operators(_graph(find_model(path), lowering))
    parts = _batches(model, inputs, batch)
    watch = Summing(layers8(model), most)
    walk = Walk(model, {layer.at: layer.operands for layer in watch.layers.values()})
    exact = [walk(part, watch.look) for part in parts]
    layers = tuple(_summary(name, seen) for name, seen in watch.seen.items())
    pairs = sum(seen.pairs for seen in watch.seen.values())
    share = sum(seen.saturated for seen in watch.seen.values()) / max(pairs, 1)
    change, agreement = 0.0, 1.0
    sampled = any(layer.sums < layer.of for layer in layers)
    if share and not sampled:
        cut = [walk(part, watch.cut) for part in parts]
        change, agreement = _difference(exact, cut)
    return Saturation(
        layers,
        share,
        None if sampled else change,
        None if sampled else agreement,
        sum(_count(part) for part in parts),
        tuple(closed_layers(model)),
    )


def _graph(file: Path, lowering: Sequence[str]) -> onnx.ModelProto:
    found = lowered(file, lowering)
    return onnx.load_from_string(found) if isinstance(found, bytes) else read(file, with_data=True)


def _batches(model: onnx.ModelProto, inputs: Arrays, batch: int) -> list[Arrays]:
    held = {tensor.name for tensor in model.graph.initializer}
    asked = [value for value in model.graph.input if value.name not in held]
    if len(asked) == len(inputs) == 1:
        inputs = {asked[0].name: next(iter(inputs.values()))}
    if {value.name for value in asked} != set(inputs):
        raise DataError(
            f"the model's inputs are {[value.name for value in asked]}, got {list(inputs)}"
        )
    n = _count(inputs)
    if any(array.shape[:1] != (n,) for array in inputs.values()):
        return [inputs]  # states and settings that have no batch in front can't be cut
    first = asked[0].type.tensor_type.shape.dim
    fixed = first[0].dim_value if first else 0
    size = fixed or min(batch, max(n, 1))
    every = (rows(inputs, at, at + size) for at in range(0, n, size))
    parts: list[Arrays] = [p for p in every if not fixed or _count(p) == fixed]
    if not n or not parts:
        raise DataError(f"saturation expects at least {size} examples, got {n}; give more")
    return parts


def _count(part: Arrays) -> int:
    return next((len(array) for array in part.values() if array.ndim), 1)


def _summary(name: str, seen: Seen) -> LayerSaturation:
    return LayerSaturation(
        name,
        seen.op,
        seen.saturated / max(seen.pairs, 1),
        seen.touched / max(seen.sums, 1),
        float(np.sqrt(seen.moved / seen.power)) if seen.power else 0.0,
        seen.sums,
        seen.of,
    )


def _difference(
    exact: list[dict[str, np.ndarray]], cut: list[dict[str, np.ndarray]]
) -> tuple[float, float]:
    """Return how far the first output moves, and how often its largest entry stays the same."""
    first = next(iter(exact[0]))
    a, b = (np.concatenate([part[first] for part in parts]).astype(float) for parts in (exact, cut))
    power = float(np.sqrt(np.mean(a**2)))
    change = float(np.sqrt(np.mean((a - b) ** 2))) / power if power else 0.0
    same = a.argmax(axis=-1) == b.argmax(axis=-1) if a.ndim else a == b
    return change, float(np.mean(same))
