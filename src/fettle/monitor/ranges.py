"""Activation-range drift: whether layers clip more than they did on the reference.

A quantized layer knows the range that it was calibrated on; what lies past it is clipped, silently.
A side session of the same file, in which every calibrated tensor (the input of a QuantizeLinear)
is an output too, sees how much: run it on a sample of requests, off their path. It computes
unfused, so it takes some times as long as the served session, and its numbers are the master's.

Elements of one example are alike, so examples are counted, not elements: how many clip more than
95 % of the reference's examples do. Against a clean window that count has a beta-binomial
distribution, exact whatever the activations are (ties make it careful); over layers it is corrected
by Holm's method. A range that ends at zero is a rectifier's: what lies below it is cut by design.

Source: B. Jacob et al., CVPR 2018 (affine quantization); S. S. Wilks, Annals of Mathematical
Statistics 13 (1942) 400–409 (how many of a second sample pass a quantile of the first).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import onnx
from onnx import helper, numpy_helper

from fettle.core.arrays import Arrays
from fettle.core.errors import DataError, ModelError
from fettle.core.shelf import RUNTIMES
from fettle.monitor.drift.correction import holm
from fettle.runtimes import Runtime, Session, match_inputs

_AT_ONCE = 16
_COMMON = 0.95
_LEAST = 8
Clipped = dict[str, np.ndarray]


@dataclass(frozen=True)
class Range:
    """A calibrated tensor: what lies in low … high, both included, is not clipped."""

    tensor: str
    layer: str
    low: float
    high: float


@dataclass(frozen=True)
class Saturation:
    """One layer's clipping.

    Attributes:
        clipped: the mean share of elements that are clipped, of the sample.
        reference: likewise of the reference.
        past: the share of the sample's examples that clip more than 95 % of the reference's do.
        p: the chance of so many, or more, where nothing has drifted.
        adjusted: that after Holm's correction over layers.
        alarm: whether it is at most alpha.
    """

    range: Range
    clipped: float
    reference: float
    past: float
    p: float
    adjusted: float
    alarm: bool

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "tensor": self.range.tensor,
            "layer": self.range.layer,
            "low": self.range.low,
            "high": self.range.high,
            "clipped": self.clipped,
            "reference": self.reference,
            "past": self.past,
            "p": self.p,
            "adjusted": self.adjusted,
            "alarm": self.alarm,
        }


class SideSession:
    """A quantized model that shows its calibrated tensors.

    Args:
        model: an ONNX file with QuantizeLinear of activations.
        threads: that it may use.

    Raises:
        ModelError: the file isn't quantized, or the engine refuses it.
    """

    def __init__(self, model: Path, threads: int = 1) -> None:
        exposed = onnx.load(str(model))
        self.ranges = calibrated(exposed)
        if not self.ranges:
            raise ModelError(
                f"{model.name} has no calibrated activations (QuantizeLinear with a constant"
                " scale); ranges drift only in a statically quantized model"
            )
        _expose(exposed, self.ranges)
        self._folder = tempfile.TemporaryDirectory(prefix="fettle-side-")
        try:
            self._session = _built(exposed, Path(self._folder.name), threads)
        except BaseException:
            self._folder.cleanup()
            raise

    def clipped(self, inputs: Arrays) -> Clipped:
        """Return the share of each example's elements that are clipped, by tensor, shape (n,).

        Raises:
            InputError: inputs that the model doesn't take.
            DataError: no examples.
        """
        matched = match_inputs(self._session.inputs, inputs)
        n = min((len(array) for array in matched.values()), default=0)
        if n == 0:
            raise DataError("examples were expected, got none")
        found: dict[str, list[np.ndarray]] = {each.tensor: [] for each in self.ranges}
        for start, stop in _pieces(n, self._session):
            given = {name: array[start:stop] for name, array in matched.items()}
            seen = {**given, **self._session.run(given)}
            for each in self.ranges:
                found[each.tensor].append(_share(seen[each.tensor], each, stop - start))
        return {name: np.concatenate(shares) for name, shares in found.items()}

    def close(self) -> None:
        """Give back what the session holds."""
        self._session.close()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def calibrated(model: onnx.ModelProto) -> tuple[Range, ...]:
    """Return the tensors of a model that are quantized by constant numbers, in its order."""
    constants = {each.name: each for each in model.graph.initializer}
    constants |= {
        node.output[0]: node.attribute[0].t
        for node in model.graph.node
        if node.op_type == "Constant" and node.attribute[0].name == "value"
    }
    found: dict[str, Range] = {}
    for node in model.graph.node:
        known = [constants.get(name) for name in node.input[1:3]]
        if node.op_type != "QuantizeLinear" or node.input[0] in constants or None in known:
            continue
        scale, zero = (numpy_helper.to_array(each) for each in known if each is not None)
        if len(known) == 2 and scale.size == 1 and zero.dtype.kind in "iu":
            made = _range(node, float(scale.reshape(())), int(zero.reshape(())), zero.dtype)
            found.setdefault(made.tensor, made)
    return tuple(found.values())


def saturation(
    side: SideSession, reference: Arrays, sample: Arrays, alpha: float = 0.05
) -> list[Saturation]:
    """Hold the clipping of a sample against that of the reference, the worst layer first.

    Args:
        side: of the served model.
        reference: inputs that the bundle was proven on.
        sample: inputs of requests.
        alpha: the chance that any layer alarms by mistake.

    Raises:
        InputError: inputs that the model doesn't take.
        DataError: fewer than eight reference examples, or none of the sample.
    """
    before, now = side.clipped(reference), side.clipped(sample)
    return judged(side.ranges, before, now, alpha)


def judged(
    ranges: tuple[Range, ...],
    before: Mapping[str, np.ndarray],
    now: Mapping[str, np.ndarray],
    alpha: float = 0.05,
) -> list[Saturation]:
    """Return the layers' saturation; see `saturation`.

    Args:
        ranges: the layers'.
        before: shares clipped of the reference's examples, by tensor.
        now: of the sample's.
        alpha: the chance that any layer alarms by mistake.
    """
    found = [_past(before[each.tensor], now[each.tensor]) for each in ranges]
    adjusted = holm([p for _, p in found])
    judgements = [
        Saturation(
            each,
            float(now[each.tensor].mean()),
            float(before[each.tensor].mean()),
            past,
            p,
            float(corrected),
            bool(corrected <= alpha),
        )
        for each, (past, p), corrected in zip(ranges, found, adjusted, strict=True)
    ]
    return sorted(judgements, key=lambda each: (each.adjusted, each.reference - each.clipped))


def _past(before: np.ndarray, now: np.ndarray) -> tuple[float, float]:
    """Return the share of examples past a quantile of the reference, and its p-value."""
    from scipy import stats

    m, n = len(before), len(now)
    if m < _LEAST:
        raise DataError(f"at least {_LEAST} reference examples were expected, got {m}")
    place = int(np.ceil(_COMMON * m))
    limit = np.sort(before)[place - 1]
    hits = int((now > limit).sum())
    # of a continuous truth the share past the place-th of m is Beta(m − place + 1, place)
    chance = stats.betabinom.sf(hits - 1, n, m - place + 1, place)
    return hits / n, float(min(1.0, chance))


def _range(node: onnx.NodeProto, scale: float, zero: int, kind: np.dtype[Any]) -> Range:
    ends = np.iinfo(kind)
    low = -np.inf if zero == ends.min else (ends.min - 0.5 - zero) * scale
    high = np.inf if zero == ends.max else (ends.max + 0.5 - zero) * scale
    return Range(node.input[0], node.name or node.input[0], float(low), float(high))


def _expose(model: onnx.ModelProto, ranges: tuple[Range, ...]) -> None:
    """Make the calibrated tensors outputs; inputs are known anyway."""
    there = {each.name for each in model.graph.output}
    scales = {n.input[0]: n.input[1] for n in model.graph.node if n.op_type == "QuantizeLinear"}
    types = {each.name: each.data_type for each in model.graph.initializer}
    given = {each.name for each in model.graph.input}
    for each in ranges:
        if each.tensor in there or each.tensor in given:
            continue
        kind = types.get(scales[each.tensor], onnx.TensorProto.FLOAT)
        model.graph.output.append(helper.make_tensor_value_info(each.tensor, kind, None))


def _built(model: onnx.ModelProto, folder: Path, threads: int) -> Session:
    path = folder / "side.onnx"
    onnx.save(model, str(path), save_as_external_data=True, location="side.data")
    runtime = RUNTIMES.make("onnxruntime", threads=threads)
    assert isinstance(runtime, Runtime)
    return runtime.build(path)


def _pieces(n: int, session: Session) -> Iterator[tuple[int, int]]:
    """Yield bounds of batches; of a fixed batch whole ones only."""
    fixed = session.inputs[0].shape[0] if session.inputs[0].shape else -1
    step = fixed if fixed > 0 else _AT_ONCE
    for start in range(0, n - n % step if fixed > 0 else n, step):
        yield start, min(n, start + step)


def _share(values: np.ndarray, within: Range, n: int) -> np.ndarray:
    """Return the share of each example's elements that are clipped; NaN counts as clipped."""
    if values.ndim == 0 or len(values) != n:
        values = np.broadcast_to(values.reshape(1, -1), (n, values.size))
    inside = (values >= within.low) & (values <= within.high)
    return np.asarray(1 - inside.reshape(n, -1).mean(1))
