"""Sparsity: the share of weights that are zero.

Without a sparse kernel, zeros make a file that compresses better, not a model that runs faster.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from onnx.external_data_helper import uses_external_data

from fettle.core.bundle import Bundle
from fettle.core.errors import ModelError
from fettle.core.measurement import Measurement
from fettle.measure._graph import Weight, constants, read, weights
from fettle.measure._metric import Artifact, Metric


@dataclass(frozen=True)
class TensorSparsity:
    """How many of a weight tensor's `size` numbers are zero."""

    name: str
    shape: tuple[int, ...]
    zeros: int
    size: int

    @property
    def share(self) -> float:
        """The share that is zero, 0 … 1."""
        return self.zeros / max(self.size, 1)


@dataclass(frozen=True)
class ModelSparsity:
    """How many of a model's weights are zero, by tensor in `layers` and in all."""

    layers: Mapping[str, TensorSparsity]

    @property
    def zeros(self) -> int:
        """How many weights are zero."""
        return sum(layer.zeros for layer in self.layers.values())

    @property
    def size(self) -> int:
        """How many weights there are."""
        return sum(layer.size for layer in self.layers.values())

    @property
    def total(self) -> float:
        """The share of all weights that is zero, 0 … 1; 0 when there are none."""
        return self.zeros / max(self.size, 1)

    def __str__(self) -> str:
        """Return a table: one line a tensor, and the total."""
        total = TensorSparsity("total", (), self.zeros, self.size)
        rows = [*self.layers.values(), total]
        width = max(len(row.name) for row in rows)
        return "\n".join(
            f"{row.name:<{width}}  {row.share:7.2%}  {row.zeros:>11,} of {row.size:>11,}"
            for row in rows
        )


def sparsity(model: Any) -> ModelSparsity:
    """Return the zeros of each weight tensor of two or more dimensions, and of all.

    Args:
        model: a torch module, an ONNX file or model, an `onnx_ir.Model`, or a bundle (or its path).

    Raises:
        ModelError: it is none of these, or no readable ONNX.

    Example:
        >>> import numpy as np, onnx_ir as ir
        >>> x, y = ir.Value(name="x"), ir.tensor(np.eye(4, dtype=np.float32), name="w")
        >>> w = ir.Value(name="w", const_value=y)
        >>> node = ir.node("MatMul", [x, w])
        >>> graph = ir.Graph([x], node.outputs, nodes=[node], initializers=[w])
        >>> print(sparsity(ir.Model(graph, ir_version=10)))
        w       75.00%           12 of          16
        total   75.00%           12 of          16
    """
    found = _of_torch(model) if hasattr(model, "named_parameters") else _of_onnx(_opened(model))
    return ModelSparsity({tensor.name: tensor for tensor in found})


def tensor_sparsity(path: str | Path) -> list[TensorSparsity]:
    """Return the zeros of each weight tensor of two or more dimensions.

    A quantized number is zero when it equals its zero point.

    Raises:
        ModelError: no readable ONNX.
    """
    return list(_of_onnx(read(path, with_data=True)))


def sparsity_of(path: str | Path) -> float:
    """Return the share of zeros over all weight tensors, 0 … 1; 0 when there are none.

    Raises:
        ModelError: no readable ONNX.
    """
    return sparsity(path).total


@dataclass(frozen=True, kw_only=True)
class Sparsity(Metric):
    """Share of weights that are zero."""

    def measure(self, subject: Artifact) -> Measurement:
        """Count them."""
        return Measurement.exact("sparsity", sparsity_of(subject.path), "share", "neither")


def _opened(model: Any) -> onnx.ModelProto:
    if isinstance(model, onnx.ModelProto):
        return _whole(model)
    if isinstance(model, ir.Model):
        return ir.to_proto(model)
    if isinstance(model, Bundle):
        return read(model.model_path, with_data=True)
    if isinstance(model, str | Path):
        return read(model, with_data=True)
    raise ModelError(
        "`sparsity` expects a torch module, an ONNX file or model, or a bundle, got"
        f" {type(model).__name__}"
    )


def _whole(model: onnx.ModelProto) -> onnx.ModelProto:
    if any(uses_external_data(tensor) for _, tensor in constants(model.graph)):
        raise ModelError(
            "`sparsity` expects a model with its weights, and these are left in another file; give"
            " the path, or call `onnx.load` with external data"
        )
    return model


def _of_onnx(model: onnx.ModelProto) -> Iterator[TensorSparsity]:
    for weight in weights(model):
        if len(weight.tensor.dims) > 1 and weight.size:
            yield _of(weight)


def _of(weight: Weight) -> TensorSparsity:
    shape = tuple(weight.tensor.dims)
    return TensorSparsity(weight.name, shape, weight.zeros(), weight.size)


def _of_torch(module: Any) -> Iterator[TensorSparsity]:
    """Count in a torch module, without importing torch.

    A converted graph keeps its int8 weights as buffers, and float ones that it no longer reads.
    """
    graph = getattr(module, "graph", None)
    read = {node.target for node in graph.nodes if node.op == "get_attr"} if graph else None
    integers = ((n, b) for n, b in module.named_buffers() if str(b.dtype) == "torch.int8")
    for name, tensor in (*_weights_in_use(module), *integers):
        if len(tensor.shape) > 1 and tensor.numel() and (read is None or name in read):
            zeros = int((tensor == 0).sum())
            yield TensorSparsity(name, tuple(tensor.shape), zeros, int(tensor.numel()))


def _weights_in_use(module: Any) -> Iterator[tuple[str, Any]]:
    """Yield by name what the forward pass computes with, each shared tensor once.

    A parametrized weight is made from other tensors, and one with a mask of
    `torch.nn.utils.prune` is their product.
    """
    seen: set[int] = set()
    for path, part in module.named_modules():
        start = f"{path}." if path else ""
        for name, parameter in part._parameters.items():
            mask = part._buffers.get(f"{name.removesuffix('_orig')}_mask")
            if parameter is None or id(parameter) in seen or ".parametrizations." in f".{start}":
                continue
            seen.add(id(parameter))
            masked = name.endswith("_orig") and mask is not None
            used = parameter.detach() * mask if masked else parameter
            yield start + (name.removesuffix("_orig") if masked else name), used
        for name in part._modules.get("parametrizations") or ():
            yield start + name, getattr(part, name).detach()
