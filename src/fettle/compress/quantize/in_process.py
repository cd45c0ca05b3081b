"""Quantized modules for those who stay inside torch: no export, no engine, `torch.compile` at most.

`quantize_dynamic` needs no data and is for linear layers (transformers, MLPs); `quantize_static`
calibrates, and is for convolutions too. Both compute in int8 only under `torch.compile`: eagerly
they give the same numbers, slowly. What is to run in production goes through `fettle.compress`,
whose ONNX file is faster still on most processors.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule
from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_
from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e

from fettle.compress._plain import copied, make_plain
from fettle.compress._soundness import check_weights
from fettle.compress.quantize import _pt2e
from fettle.compress.quantize._batches import Arguments, arguments_of
from fettle.compress.quantize._norms import fold_norms
from fettle.core.errors import CheckFailed, ModelError

_RECURRENT = (nn.RNNBase, nn.RNNCellBase)


def quantize_dynamic(model: nn.Module) -> nn.Module:
    """Return a copy of `model` whose linear layers have int8 weights and round their inputs.

    Weights are symmetric by output channel; each row of activations is scaled by its own largest
    value as it comes (Dettmers et al. 2022, arXiv 2208.07339, call it vector-wise). Recurrent
    layers and convolutions stay in float, with a warning for the former: their dynamic form is
    `graph.dynamic_int8`, on the exported file.

    Args:
        model: on a CPU or GPU, in any mode; it is left as it is.

    Raises:
        ModelError: it has no linear layer.

    Example:
        >>> quantized = quantize_dynamic(nn.Sequential(nn.Linear(64, 32), nn.ReLU()))
        >>> quantized[0].weight.qdata.dtype
        torch.int8
        >>> tuple(quantized(torch.zeros(3, 64)).shape)  # torch.compile(quantized) for the speed
        (3, 32)
    """
    _refuse_converted(model)
    _warn_of_recurrent(model)
    quantized = _plain(model)
    names = _linear_layers(quantized)
    if not names:
        raise ModelError(
            "`quantize_dynamic` works on linear layers, and the model has none in floating point;"
            " for convolutions use `quantize_static`, for recurrent layers `graph.dynamic_int8` on"
            " the exported file"
        )
    with _pt2e.quiet(), torch.no_grad():
        quantize_(quantized, Int8DynamicActivationInt8WeightConfig(), lambda _, name: name in names)
    return quantized


def quantize_static(model: nn.Module, batches: Iterable[Any]) -> nn.Module:
    """Return a graph of `model` with int8 weights and uint8 activations, calibrated on `batches`.

    Activations are affine by tensor, weights symmetric by output channel (Jacob et al. 2018, arXiv
    1712.05877), where TorchInductor has integer kernels on x86: convolutions, linear layers, and
    what follows them. Without VNNI activations have 7 bits, since 8 would overflow. Recurrent
    layers stay in float, with a warning.

    For the speed, let TorchInductor freeze the weights, and compile without gradients:

        torch._inductor.config.freezing = True
        with torch.no_grad():
            fast = torch.compile(quantized)
            fast(x)

    Args:
        model: on the CPU, float32, in any mode; it is left as it is.
        batches: what the model takes: tensors, tuples of arguments, dicts of named arguments, or
            pairs (inputs, target), whose target is dropped. Batch first; 100 to 500 examples.

    Returns:
        A module for any batch size, in evaluation mode.

    Raises:
        ModelError: it can't be captured, or has no layer to quantize.
        DataError: no batches, or what is in them does not fit the model or is not finite.
        CheckFailed: the quantized graph's outputs are not finite.

    Example:
        >>> model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
        >>> quantized = quantize_static(model, [torch.randn(32, 8) for _ in range(4)])
        >>> sorted({str(b.dtype) for b in quantized.buffers() if b.dim() == 2})
        ['torch.int8']
    """
    _refuse_converted(model)
    _warn_of_recurrent(model)
    found = arguments_of(model, batches)
    first = next(found)
    prepared = _prepare(_plain(model), first)
    _observe(prepared, first)
    for arguments in found:
        _observe(prepared, arguments)
    quantized = _pt2e.convert(prepared)
    if not _pt2e.count_quantized(quantized):
        raise ModelError(
            "`quantize_static` found nothing to quantize: no float32 convolution or linear layer"
            " with a weight of its own"
        )
    for name in ("train", "eval"):  # torchao makes them raise; here they have no effect
        quantized.__dict__.pop(name, None)
    _check(quantized, first)
    return quantized


def _plain(model: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode, in which no weight is computed anew at each call."""
    plain = copied(model).eval()
    make_plain(plain)
    check_weights("quantization", plain)
    return plain


def _prepare(model: nn.Module, first: Arguments) -> GraphModule:
    with _pt2e.quiet():  # it imports TorchInductor, which takes seconds
        from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    config = x86.get_default_x86_inductor_quantization_config(
        reduce_range=not torch.cpu._is_vnni_supported()
    )
    graph = _pt2e.capture(model, first.inputs, first.named, strict=True)
    fold_norms(graph)
    with _pt2e.quiet():
        prepared: GraphModule = prepare_pt2e(graph, x86.X86InductorQuantizer().set_global(config))
    return prepared


@torch.no_grad()
def _observe(prepared: nn.Module, arguments: Arguments) -> None:
    prepared(*arguments.inputs, **arguments.named)


@torch.no_grad()
def _check(quantized: nn.Module, arguments: Arguments) -> None:
    outputs = quantized(*arguments.inputs, **arguments.named)
    tensors = [t for t in torch.utils._pytree.tree_leaves(outputs) if isinstance(t, torch.Tensor)]
    if not all(torch.isfinite(tensor).all() for tensor in tensors):
        raise CheckFailed(
            "`quantize_static` made a model whose outputs on the first batch are not finite; are"
            " those of the float model?"
        )


def _linear_layers(model: nn.Module) -> set[str]:
    """Return the names of plain linear layers (those inside attention modules are no such)."""
    return {n for n, m in model.named_modules() if type(m) is nn.Linear}


def _refuse_converted(model: nn.Module) -> None:
    if isinstance(model, GraphModule) and _pt2e.count_quantized(model):
        raise ModelError("the model is quantized already; give the float module that it came from")


def _warn_of_recurrent(model: nn.Module) -> None:
    kinds = {type(m).__name__ for m in model.modules() if isinstance(m, _RECURRENT)}
    if kinds:
        warnings.warn(
            f"{', '.join(sorted(kinds))} layers stay in float: torch has no integer kernel for"
            " them; `graph.dynamic_int8` on the exported file quantizes them",
            stacklevel=3,
        )
