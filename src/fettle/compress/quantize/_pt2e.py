"""PT2E (torchao): from a module to its prepared graph, and from there to the int8 master.

q = clamp(round(x / scale), −128, 127), x ≈ q · scale. Every zero point is 0.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.export import Dim
from torch.fx import GraphModule
from torchao.quantization.pt2e import (
    FakeQuantize,
    HistogramObserver,
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    PerChannelMinMaxObserver,
    move_exported_model_to_eval,
    move_exported_model_to_train,
)
from torchao.quantization.pt2e.quantize_pt2e import (
    convert_pt2e,
    prepare_pt2e,
    prepare_qat_pt2e,
)
from torchao.quantization.pt2e.quantizer import QuantizationSpec

from fettle.compress._technique import example_tensors
from fettle.compress.quantize._quantizer import SymmetricQuantizer
from fettle.core.errors import ModelError
from fettle.tasks import Task

_SMALLEST_SCALE = 1e-10
_OBSERVERS = {"minmax": MinMaxObserver, "mse": HistogramObserver}


def prepare(model: nn.Module, task: Task, calibrator: str) -> GraphModule:
    """Return `model`'s graph with observers, ready for calibration batches."""
    quantizer = SymmetricQuantizer(
        _activation(_OBSERVERS[calibrator].with_args(eps=_SMALLEST_SCALE)),
        _weight(PerChannelMinMaxObserver.with_args(eps=_SMALLEST_SCALE)),
    )
    model.eval()
    with quiet():
        prepared: GraphModule = prepare_pt2e(_graph_of(model, task), quantizer)
    return prepared


def prepare_training(model: nn.Module, task: Task) -> GraphModule:
    """Return `model`'s graph with fake quantization and folded batch norms, ready to train.

    Plain `FakeQuantize` is used: the fused kind trains with another scale than convert uses.
    """
    activation = FakeQuantize.with_args(observer=MovingAverageMinMaxObserver, eps=_SMALLEST_SCALE)
    weight = FakeQuantize.with_args(
        observer=MovingAveragePerChannelMinMaxObserver, eps=_SMALLEST_SCALE
    )
    quantizer = SymmetricQuantizer(_activation(activation), _weight(weight))
    model.eval()
    with quiet():
        prepared: GraphModule = prepare_qat_pt2e(_graph_of(model, task), quantizer)
    return prepared


def convert(prepared: GraphModule) -> GraphModule:
    """Return the quantized graph: int8 weights behind dequantize, explicit Q/DQ elsewhere."""
    set_training(prepared, False)
    with quiet():
        converted: GraphModule = convert_pt2e(prepared)
    return converted


def set_training(model: nn.Module, training: bool) -> None:
    """Switch a prepared graph between training and evaluation (`.train()` refuses to)."""
    with quiet():
        move = move_exported_model_to_train if training else move_exported_model_to_eval
        move(model)


def count_quantized(graph: GraphModule) -> int:
    """Return how many tensors of a converted graph are quantized."""
    return sum("quantize_per" in str(node.target) for node in graph.graph.nodes)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the deprecation chatter of export and torchao; errors still come through."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _graph_of(model: nn.Module, task: Task) -> GraphModule:
    inputs = example_tensors(task)
    shapes = tuple({0: Dim.DYNAMIC} for _ in inputs)
    try:
        exported = torch.export.export(model, inputs, dynamic_shapes=shapes)
    except Exception as error:  # torch.export raises whatever the model's own code provokes
        raise ModelError(
            "the model can't be captured as a graph, which quantization needs;"
            f" torch.export says: {_first_line(error)}. Data-dependent Python branches are the"
            " usual cause: use torch.cond, or leave `quantize.*` out of the recipe"
        ) from error
    module = exported.module()
    assert isinstance(module, GraphModule)
    return module


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
