"""`torchvision:NAME`: the classifiers of torchvision.

A torchvision from the package index doesn't find the C++ library that fits a torch built for CPU
only, and its import dies on `torchvision::nms`. Classifiers use none of its operators: declaring
them is enough.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

import torch
from torch import nn

from fettle.core.errors import ModelError, UnknownName
from fettle.models._origin import Origin

_Library: Any = torch.library.Library  # it has no types
_OPERATORS = ("nms", "qnms")
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_WITHOUT_AUXILIARY = {"aux_logits": False, "init_weights": True}
_EXTRA = {"googlenet": _WITHOUT_AUXILIARY, "inception_v3": _WITHOUT_AUXILIARY}


@cache
def import_torchvision() -> Any:
    """Return the package torchvision, with its operators declared where they don't load."""
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        _declare()
        return importlib.import_module("torchvision")


@cache
def _declare() -> Any:
    library = _Library("torchvision", "DEF")  # cached: it must outlive this call
    for name in _OPERATORS:
        library.define(name + _SCHEMA)
    return library


def build(name: str, origin: Origin, pretrained: bool) -> nn.Module:
    """Return torchvision's classifier called `name`, adapted to the origin's classes and channels.

    Raises:
        UnknownName: torchvision has no such classifier.
        ModelError: pretrained weights that have other classes or can't be fetched.
    """
    models = import_torchvision().models
    known = models.list_models(module=models)
    if name not in known:
        raise UnknownName("model", f"torchvision:{name}", [f"torchvision:{k}" for k in known])
    extra: dict[str, Any] = {} if pretrained else dict(_EXTRA.get(name, {}))
    if origin.classes is not None:
        extra["num_classes"] = origin.classes
    try:
        module: nn.Module = models.get_model(
            name, weights="DEFAULT" if pretrained else None, **extra
        )
    except (ValueError, OSError) as error:
        raise ModelError(
            f"torchvision's pretrained `{name}` can't be used here ({error}); train from scratch,"
            " or give a file of weights"
        ) from error
    return _with_channels(module, origin.in_channels or 3, pretrained)


def _with_channels(module: nn.Module, channels: int, pretrained: bool) -> nn.Module:
    """Replace the first convolution by one that takes `channels`."""
    name, first = next((n, m) for n, m in module.named_modules() if isinstance(m, nn.Conv2d))
    if first.in_channels == channels:
        return module
    if pretrained:
        raise ModelError(
            f"pretrained weights expect {first.in_channels} channels, the data has {channels};"
            " train from scratch"
        )
    parent, _, leaf = name.rpartition(".")
    fresh = nn.Conv2d(
        channels,
        first.out_channels,
        first.kernel_size,  # type: ignore[arg-type]
        first.stride,  # type: ignore[arg-type]
        first.padding,  # type: ignore[arg-type]
        bias=first.bias is not None,
    )
    setattr(module.get_submodule(parent), leaf, fresh)
    return module
