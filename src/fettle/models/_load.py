"""From a line such as `cifar:resnet20` to a module."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import nn

from fettle.core.errors import MissingError, ModelError, UnknownName
from fettle.core.shelf import INSTALL
from fettle.core.signature import Signature
from fettle.models import _function, _live, _timm, _torchvision, cifar, rnn
from fettle.models._hf_shapes import shape_of
from fettle.models._onnx_file import is_onnx
from fettle.models._origin import Origin, mark
from fettle.models._weights import load_weights

_PACKAGES = {"torchvision": "torchvision", "timm": "timm", "hf": "transformers"}
_BUILDERS = {
    "torchvision": _torchvision.build,
    "timm": _timm.build,
    _live.FAMILY: _live.build,
}
_OF_IMAGES = ("cifar", "timm", "torchvision")
FAMILIES = ("cifar", "hf", "rnn", "timm", "torchvision")


def load(
    spec: str,
    *,
    weights: str | Path | None = None,
    signature: Signature | None = None,
    pretrained: bool = False,
    seed: int = 0,
) -> nn.Module:
    """Return the module that `spec` describes, on the CPU, in evaluation mode.

    Args:
        spec: `cifar:resnet20`, `torchvision:NAME`, `timm:NAME`, `rnn:lstm`, `hf:bert-mini`,
            `hf:FOLDER`, `hf:owner/name`, `path/file.py:function`, `package.module:function`, or
            a folder that `save` wrote.
        weights: a file of weights, `.safetensors` or `.pt`.
        signature: of the task; without it the family's own classes and channels hold.
        pretrained: with the family's published weights, which may need a network.
        seed: of the random weights that a model without others starts with.

    Raises:
        UnknownName: no such family or model.
        MissingError: the package of the family is not installed.
        ModelError: the model or its weights can't be used.

    Example:
        >>> sum(p.numel() for p in load("cifar:resnet20").parameters())
        269722
    """
    origin = Origin.of(spec.strip(), signature)
    if (Path(spec) / "structure.json").is_file():
        return _saved(Path(spec), weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = _build(origin, pretrained)
    if weights is not None:
        load_weights(module, weights)
    return module


def _saved(folder: Path, weights: str | Path | None) -> nn.Module:
    from fettle.models._store import open_folder  # it rebuilds through this module

    module = open_folder(folder)
    return module if weights is None else load_weights(module, weights)


def rebuild(origin: Origin) -> nn.Module:
    """Return the same architecture again, untrained.

    Raises:
        UnknownName: no such family or model.
        MissingError: the package of the family is not installed.
        ModelError: the model can't be built any more.
    """
    return _build(origin, pretrained=False)


def _build(origin: Origin, pretrained: bool) -> nn.Module:
    family, _, name = origin.spec.partition(":")
    if is_onnx(origin.spec):
        raise ModelError(f"`{origin.spec}` is an ONNX graph, and a torch module was expected")
    if family in _PACKAGES:
        _need(_PACKAGES[family], origin.spec)
    _need_image(origin, family)
    if family in _BUILDERS:
        return mark(_BUILDERS[family](name, origin, pretrained), origin)
    if family == "hf" and not (pretrained and shape_of(name)):
        return mark(*_text(name, origin))
    if pretrained:
        raise ModelError(f"`{origin.spec}` has no published weights; give a file of weights")
    if family == "cifar":
        return mark(cifar.build(name, origin.classes or 10, origin.in_channels or 3), origin)
    if family == "rnn":
        return mark(rnn.build(name, origin), origin)
    return mark(_own(origin, family), origin)


def _text(name: str, origin: Origin) -> tuple[nn.Module, Origin]:
    from fettle.models import _hf

    return _hf.build(name, origin)


def _own(origin: Origin, family: str) -> nn.Module:
    place, colon, _ = origin.spec.rpartition(":")
    if not colon or not (place.endswith(".py") or _exists(place)):
        raise UnknownName("model family", family, [f"{known}:" for known in FAMILIES])
    return _function.build(origin.spec, origin)


def _need_image(origin: Origin, family: str) -> None:
    if family in _OF_IMAGES and origin.inputs:
        got = ", ".join(f"`{s.name}` {s.dtype}{list(s.shape[1:])}" for s in origin.inputs)
        raise ModelError(
            f"`{origin.spec}` takes one image [channels, height, width], the data gives {got}; give"
            " images, or a model of sequences (`rnn:lstm`, `hf:bert-mini`)"
        )


def _need(package: str, spec: str) -> None:
    if not _exists(package):
        raise MissingError(f"`{spec}` needs the package `{package}`", INSTALL[package])


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ModuleNotFoundError, ValueError):
        return False
