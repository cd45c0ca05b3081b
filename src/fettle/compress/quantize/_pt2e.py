"""PT2E (torchao): from a module to its prepared graph, and from there to the int8 master.

q = clamp(round(x / scale), −128, 127), x ≈ q · scale. Every zero point is 0.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ShapesCollection
from torch.fx import GraphModule
from torchao.quantization.pt2e import (
    FakeQuantize,
    FakeQuantizeBase,
    HistogramObserver,
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    ObserverBase,
    PerChannelMinMaxObserver,
    disable_observer,
)
from torchao.quantization.pt2e.prepare import prepare as insert_quantizers
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer import QuantizationSpec

from fettle.compress.quantize._learned import LearnedScale
from fettle.compress.quantize._left import leave
from fettle.compress.quantize._norms import add_marks, fold_norms, set_training
from fettle.compress.quantize._quantizer import SymmetricQuantizer
from fettle.core.errors import DataError, ModelError

_SMALLEST_SCALE = 1e-10
_OBSERVERS = {"minmax": MinMaxObserver, "mse": HistogramObserver}
_FAKES: dict[str, Any] = {"observed": FakeQuantize, "learned": LearnedScale}

Inputs = tuple[Tensor, ...]


def prepare(model: nn.Module, inputs: Inputs, calibrator: str, left: str = "") -> GraphModule:
    """Return `model`'s graph with observers, ready for calibration batches.

    `left` names the layers that stay in float.

    Raises:
        ModelError: it can't be captured, there is nothing in it to quantize, or `left` names what
            isn't there.
    """
    quantizer = SymmetricQuantizer(
        _activation(_OBSERVERS[calibrator].with_args(eps=_SMALLEST_SCALE)),
        _weight(PerChannelMinMaxObserver.with_args(eps=_SMALLEST_SCALE)),
    )
    graph = capture(model, inputs)
    leave(graph, left)
    fold_norms(graph)
    with quiet():
        prepared: GraphModule = prepare_pt2e(graph, quantizer)
    _refuse_nothing(prepared)
    return prepared


def prepare_training(
    model: nn.Module, inputs: Inputs, scales: str = "observed", left: str = ""
) -> GraphModule:
    """Return `model`'s graph with fake quantization, in evaluation mode, ready to train.

    Plain `FakeQuantize` is used: the fused kind trains with another scale than convert uses. Batch
    norms stay until the conversion (see `_norms`), so torchao's `prepare_qat_pt2e`, which rewrites
    them with an ε of its own, is not.

    Raises:
        ModelError: it can't be captured, there is nothing in it to quantize, or `left` names what
            isn't there.
    """
    fake = _FAKES[scales]
    quantizer = SymmetricQuantizer(
        _activation(fake.with_args(observer=MovingAverageMinMaxObserver, eps=_SMALLEST_SCALE)),
        _weight(
            fake.with_args(observer=MovingAveragePerChannelMinMaxObserver, eps=_SMALLEST_SCALE)
        ),
    )
    graph = capture(model, inputs)
    leave(graph, left)
    quantizer.annotate(graph)
    with quiet():
        prepared: GraphModule = insert_quantizers(graph, {}, is_qat=True)
    _refuse_nothing(prepared)
    add_marks(prepared)
    return prepared


@torch.no_grad()
def calibrate(prepared: GraphModule, batches: Iterable[Inputs]) -> None:
    """Let a prepared graph, in evaluation mode, observe the ranges of `batches`.

    Raises:
        DataError: a batch holds NaN or infinity, or does not fit the graph.
    """
    for inputs in batches:
        if not all(torch.isfinite(tensor).all() for tensor in inputs):
            raise DataError(
                "finite numbers were expected for calibration, but a batch holds NaN or infinity,"
                " from which no range can be taken; clean the data"
            )
        try:
            prepared(*inputs)
        except Exception as error:  # torch's own guards, which are assertions
            shapes = [tuple(tensor.shape) for tensor in inputs]
            raise DataError(
                f"a calibration batch of shapes {shapes} doesn't fit the graph, which was captured"
                f" with the task's example inputs ({_first_line(error)}); give inputs of one shape"
            ) from error


def convert(prepared: GraphModule) -> GraphModule:
    """Return the quantized graph: int8 weights behind dequantize, explicit Q/DQ elsewhere."""
    prepared.apply(disable_observer)
    set_training(prepared, False)
    fold_norms(prepared)
    with quiet():
        converted: GraphModule = convert_pt2e(prepared)
    _drop_unread(converted)
    return converted


def count_quantized(graph: GraphModule) -> int:
    """Return how many tensors of a converted graph are quantized."""
    return sum("quantize_per" in str(node.target) for node in graph.graph.nodes)


def _drop_unread(graph: GraphModule) -> None:
    """Drop the float weights that the int8 ones replace: torchao leaves them in the module."""
    read = {str(node.target) for node in graph.graph.nodes if node.op == "get_attr"}
    for name in [n for n, _ in graph.named_parameters(remove_duplicate=False) if n not in read]:
        owner, _, leaf = name.rpartition(".")
        delattr(graph.get_submodule(owner), leaf)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the deprecation chatter of export and torchao; errors still come through."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def capture(
    model: nn.Module,
    inputs: Inputs,
    named: Mapping[str, Tensor] | None = None,
    strict: bool = False,
) -> GraphModule:
    """Return the graph of `model` in evaluation mode, for any batch size.

    Args:
        model: put into evaluation mode.
        inputs: example arguments by position, batch first.
        named: example arguments by name.
        strict: capture through TorchDynamo, which some of torchao's quantizers need.

    Raises:
        ModelError: torch.export can't capture it.
    """
    model.eval()
    inputs = tuple(map(_two, inputs))
    named = {name: _two(tensor) for name, tensor in (named or {}).items()}
    shapes: Any = ShapesCollection()  # type: ignore[no-untyped-call]
    for tensor in (*inputs, *named.values()):
        shapes[tensor] = {0: Dim.DYNAMIC}
    try:
        with quiet():
            module = torch.export.export(
                model,
                inputs,
                named,
                dynamic_shapes=shapes.dynamic_shapes(model, inputs, named),
                strict=strict,
            ).module()
    except Exception as error:  # torch.export raises whatever the model's own code provokes
        raise ModelError(
            "the model can't be captured as a graph, which quantization needs;"
            f" torch.export says: {_first_line(error)}. Data-dependent Python branches are the"
            " usual cause: use torch.cond, or leave `quantize.*` out of the recipe"
        ) from error
    assert isinstance(module, GraphModule)
    return module


def _two(tensor: Tensor) -> Tensor:
    """Return a batch of at least two: one example would be taken for a constant.

    It is contiguous, because the graph of a cut-out view takes nothing but such views.
    """
    return torch.cat([tensor, tensor]) if len(tensor) == 1 else tensor.contiguous()


def _refuse_nothing(prepared: GraphModule) -> None:
    if not any(isinstance(m, ObserverBase | FakeQuantizeBase) for m in prepared.modules()):
        raise ModelError(
            "there is nothing to quantize: no float32 convolution or linear layer with a weight of"
            " its own (torch runs recurrent layers whole, in float); leave `quantize.*` out of the"
            " recipe, or quantize the ONNX file with `graph.dynamic_int8`"
        )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _activation(observer: Callable[..., Any]) -> QuantizationSpec:
    return QuantizationSpec(
        dtype=torch.int8,
        quant_min=-128,
        quant_max=127,
        qscheme=torch.per_tensor_symmetric,
        observer_or_fake_quant_ctr=observer,
    )


def _weight(observer: Callable[..., Any]) -> QuantizationSpec:
    return QuantizationSpec(
        dtype=torch.int8,
        quant_min=-127,
        quant_max=127,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
        observer_or_fake_quant_ctr=observer,
    )
