"""Arithmetic that doesn't depend on how many channels there are.

Layer norm, attention's scale and means over channels change when channels go, rightly. To compare
a narrower model with the wide one whose channels are silenced, both run in here. Rectifiers leak in
here, for where a channel is dead on the examples, it looks the same whichever channel went.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class Neutral(TorchFunctionMode):
    """Within it norms are affine, means are sums, attention has a fixed scale, rectifiers leak."""

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call the neutral form of `func` where it has one."""
        del types
        return _FORMS.get(func, func)(*args, **(kwargs or {}))


def _layer_norm(
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *_: Any,
    **__: Any,
) -> Tensor:
    if tuple(x.shape[-len(normalized_shape) :]) != tuple(normalized_shape):
        raise ValueError(f"normalized_shape {normalized_shape} on {tuple(x.shape)}")
    return _affine(x, weight, bias)


def _rms_norm(
    x: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, *_: Any, **__: Any
) -> Tensor:
    return _layer_norm(x, normalized_shape, weight)


def _group_norm(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *_: Any,
    **__: Any,
) -> Tensor:
    if x.shape[1] % num_groups:
        raise ValueError(f"{num_groups} groups of {x.shape[1]} channels")
    shape = (1, -1, *(1 for _ in x.shape[2:]))
    parts = (None if part is None else part.reshape(shape) for part in (weight, bias))
    return _affine(x, *parts)


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _attention(q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    kwargs["scale"] = kwargs.get("scale") or 0.1
    return F.scaled_dot_product_attention(q, k, v, *args, **kwargs)


def _sum(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return 0.1 * torch.sum(x, *args, **kwargs)


def _squares(x: Tensor, dim: Any = None, *_: Any, keepdim: bool = False, **__: Any) -> Tensor:
    total = x.pow(2).sum() if dim is None or isinstance(dim, bool) else x.pow(2).sum(dim, keepdim)
    return 1 + 0.1 * total


def _squares_and_sum(x: Tensor, dim: Any = None, *_: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    keep = bool(kwargs.get("keepdim", False))
    return _squares(x, dim, keepdim=keep), _sum(x, dim, keepdim=keep)


def _leak(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Return max(x, x/4), whatever the bounds were; in place where that was asked for."""
    leaky = torch.maximum(x, 0.25 * x)
    in_place = kwargs.get("inplace", any(isinstance(each, bool) and each for each in args))
    return x.copy_(leaky) if in_place else leaky


def _leak_in_place(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return _leak(x, inplace=True)


_RECTIFIERS = (F.relu, torch.relu, Tensor.relu, F.relu6, F.hardtanh, F.threshold, F.hardswish,
               F.hardsigmoid, F.gelu, F.silu)  # fmt: skip
_FORMS: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys(_RECTIFIERS, _leak),
    **dict.fromkeys((torch.relu_, Tensor.relu_), _leak_in_place),
    F.layer_norm: _layer_norm,
    torch.layer_norm: _layer_norm,
    F.rms_norm: _rms_norm,
    torch.rms_norm: _rms_norm,
    F.group_norm: _group_norm,
    F.scaled_dot_product_attention: _attention,
    torch.mean: _sum,
    Tensor.mean: _sum,
    torch.var: _squares,
    Tensor.var: _squares,
    torch.var_mean: _squares_and_sum,
}
