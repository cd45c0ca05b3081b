"""Does the exported graph compute what the module computes?

The graph runs in onnxruntime without any optimization, so that Q/DQ pairs are computed as written
and the comparison is of the graph alone, not of an engine's kernels.

A deep network may amplify the rounding of float32 past any fixed limit. So a graph that differs by
more is compared once again, with the module computed in float64: it may stray from that, in the
mean, at the most and in its classes, no more than a few times as far as the module itself does.

A quantized graph rounds ties apart, and how far that moves the outputs is the model's own affair
too: one that strays further than its limits is held against twice what half a quantization step of
noise at the inputs does to the module's outputs; at the embeddings, where the inputs are integers.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime as ort
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from fettle.core.errors import ParityError
from fettle.tasks import Task

_TIMES = 4.0  # how many times the module's own rounding error the graph's may be
_STEPS = 127  # of a symmetric int8 input
_MOST_ROUNDING = 0.02  # of the mean output: past this, outputs are noise and prove nothing


@dataclass(frozen=True)
class ParityLimits:
    """What is still the same.

    `mean` and `maximum` bound the absolute difference of outputs relative to the module's mean
    absolute output; `agreement` bounds the share of examples with the same top-1 class. A
    quantized graph may round differently at ties, and a tie in an early layer moves an output by
    a quantization step: so its limits are wider. `look` says which second look a graph gets that
    is outside of them: `exact` in float64, `half-step` with noise of half a quantization step.
    """

    mean: float = 1e-4
    maximum: float = 1e-2
    agreement: float = 0.999
    look: Literal["exact", "half-step", "none"] = "exact"

    @classmethod
    def quantized(cls) -> ParityLimits:
        """Return the limits for a graph with Q/DQ pairs."""
        return cls(mean=0.05, maximum=2.0, agreement=0.98, look="half-step")


@dataclass(frozen=True)
class Parity:
    """Differences between a module and its graph, relative to the mean absolute output."""

    mean_difference: float
    max_difference: float
    agreement: float
    n: int

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)


def check_parity(
    module: nn.Module, path: Path, task: Task, limits: ParityLimits, examples: int = 128
) -> Parity:
    """Compare `module` with the ONNX file at `path` on calibration examples.

    Raises:
        ParityError: they differ by more than `limits` allow.
    """
    session = _reference_session(path)
    names = [value.name for value in session.get_inputs()]
    batches = [
        list(batch.inputs.values())
        for batch in itertools.islice(
            task.batches("calibrate", batch_size=32), max(examples // 32, 1)
        )
    ]
    ours = np.concatenate([_run(module, arrays) for arrays in batches])
    theirs = np.concatenate(
        [session.run(None, dict(zip(names, arrays, strict=True)))[0] for arrays in batches]
    )
    parity = _compare(ours, theirs)
    if not _holds(parity, limits) and not _SECOND_LOOKS[limits.look](module, batches, ours, theirs):
        raise _refusal(parity, limits, path)
    return parity


def _rounds_alike(
    module: nn.Module, batches: list[list[np.ndarray]], ours: np.ndarray, theirs: np.ndarray
) -> bool:
    """Say whether the graph is about as close to the exact outputs as the module is."""
    try:
        double = copy.deepcopy(module).double()
        exact = np.concatenate([_run(double, _doubled(arrays)) for arrays in batches])
    except Exception:  # a module whose own code insists on float32 has no exact outputs
        return False
    module_error, graph_error = _compare(exact, ours), _compare(exact, theirs)
    return (
        graph_error.mean_difference <= min(_TIMES * module_error.mean_difference, _MOST_ROUNDING)
        and graph_error.max_difference <= _TIMES * module_error.max_difference
        and graph_error.agreement >= module_error.agreement - 1.01 / module_error.n
    )


def _moves_alike(
    module: nn.Module, batches: list[list[np.ndarray]], ours: np.ndarray, theirs: np.ndarray
) -> bool:
    """Say whether the graph strays no further than twice what half a step at the input does."""
    rng = np.random.default_rng(0)
    if any(array.dtype.kind == "f" for arrays in batches for array in arrays):
        moved = np.concatenate([_run(module, _half_a_step_off(arrays, rng)) for arrays in batches])
    else:
        with _ShakenEmbeddings():
            moved = np.concatenate([_run(module, arrays) for arrays in batches])
    noise, found = _compare(ours, moved), _compare(ours, theirs)
    flips = 2 * (1 - noise.agreement) + 1.01 / noise.n
    return found.mean_difference <= 2 * noise.mean_difference and 1 - found.agreement <= flips


def _half_a_step_off(arrays: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    return [
        (a + np.abs(a).max() / _STEPS * rng.uniform(-0.5, 0.5, a.shape)).astype(a.dtype)
        if a.dtype.kind == "f"
        else a
        for a in arrays
    ]


class _ShakenEmbeddings(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds noise of half a quantization step to what embeddings give: the input in real numbers."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._generator = torch.Generator().manual_seed(0)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is not torch.ops.aten.embedding.default:
            return result
        uniform = torch.rand(result.shape, generator=self._generator).to(result) - 0.5
        return result + result.abs().max() / _STEPS * uniform


def _never(*_: object) -> bool:
    return False


def _doubled(arrays: list[np.ndarray]) -> list[np.ndarray]:
    return [a.astype(np.float64) if a.dtype.kind == "f" else a for a in arrays]


def _compare(ours: np.ndarray, theirs: np.ndarray) -> Parity:
    size = float(np.abs(ours).mean()) or 1.0
    difference = np.abs(ours - theirs) / size
    same = ours.reshape(len(ours), -1).argmax(1) == theirs.reshape(len(theirs), -1).argmax(1)
    return Parity(float(difference.mean()), float(difference.max()), float(same.mean()), len(ours))


def _holds(parity: Parity, limits: ParityLimits) -> bool:
    """Say whether the differences are within the limits; a NaN never is."""
    return (
        parity.mean_difference <= limits.mean
        and parity.max_difference <= limits.maximum
        and parity.agreement >= min(limits.agreement, 1 - 1.01 / parity.n)
    )


def _refusal(parity: Parity, limits: ParityLimits, path: Path) -> ParityError:
    return ParityError(
        f"{path.name} doesn't compute what its module computes: over {parity.n} examples the"
        f" mean difference is {parity.mean_difference:.2g} of the mean output (limit"
        f" {limits.mean:.2g}), the largest {parity.max_difference:.2g} (limit"
        f" {limits.maximum:.2g}), top-1 agreement {parity.agreement:.2%} (limit"
        f" {limits.agreement:.2%}); is the module in eval mode, free of random operations and"
        " of branches on data? Otherwise this is a fault of the exporter: please report it"
    )


@torch.no_grad()
def _run(module: nn.Module, arrays: list[np.ndarray]) -> np.ndarray:
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    result: np.ndarray = module(*(torch.from_numpy(a).to(device) for a in arrays)).cpu().numpy()
    return result


def _reference_session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


_SECOND_LOOKS: dict[str, Callable[..., bool]] = {
    "exact": _rounds_alike,
    "half-step": _moves_alike,
    "none": _never,
}
