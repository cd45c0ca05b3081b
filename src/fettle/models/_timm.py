"""`timm:NAME`: the models of pytorch-image-models."""

from __future__ import annotations

from typing import Any

from torch import nn

from fettle.core.errors import ModelError, UnknownName
from fettle.models._origin import Origin
from fettle.models._torchvision import import_torchvision


def build(name: str, origin: Origin, pretrained: bool) -> nn.Module:
    """Return timm's model called `name`, adapted to the origin's classes, channels and size.

    Raises:
        UnknownName: timm has no such model.
        ModelError: timm can't build it for this input, or can't fetch its weights.
    """
    import_torchvision()  # timm imports it, and would die of the same missing operators
    import timm

    known = timm.list_models()
    if name.partition(".")[0] not in known:
        raise UnknownName("model", f"timm:{name}", [f"timm:{k}" for k in known])
    extra: dict[str, Any] = {"num_classes": origin.classes, "in_chans": origin.in_channels}
    given = {key: value for key, value in extra.items() if value is not None}
    if origin.image and _needs_size(timm, name):
        given["img_size"] = origin.image[1:]
    try:
        module: nn.Module = timm.create_model(name, pretrained=pretrained, **given)
    except Exception as error:
        raise ModelError(
            f"timm can't build `{name}` with {given} ({type(error).__name__}: {error}); choose"
            " another model, or train from scratch when its weights can't be fetched"
        ) from error
    return module


def _needs_size(timm: Any, name: str) -> bool:
    config = timm.get_pretrained_cfg(name)
    return bool(config and config.fixed_input_size)
