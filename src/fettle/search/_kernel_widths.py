"""The same kernel with fewer channels: what a layer would take after pruning, without pruning it.

Weights are cut, not chosen: time doesn't depend on which channels go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fettle.core.errors import InputError, ModelError
from fettle.search._kernels import Kernel, Tensor

_NARROWABLE = ("Conv", "Gemm", "MatMul")
_RIGID = ("Reshape", "Split", "Slice", "Pad", "Expand", "Resize", "Concat", "Gather")


def narrowed(kernel: Kernel, outputs: float = 1.0, inputs: float = 1.0) -> Kernel:
    """Return the kernel with a share of its output and of its input channels, at least one each.

    Whatever is summed with the outputs (a shortcut) is narrowed with them. A depthwise convolution
    has as many inputs as outputs: both take the share of `inputs`.

    Args:
        kernel: of one convolution, Gemm or product with a weight.
        outputs: share of the channels kept, in (0, 1].
        inputs: the same, of what comes in.

    Raises:
        InputError: a share outside of (0, 1].
        ModelError: the kernel has another operator, or shapes written down in it.
    """
    for share in (outputs, inputs):
        if not 0 < share <= 1:
            raise InputError(f"a share of the channels is expected in (0, 1], got {share}")
    product = _Product.of(kernel)
    if product.depthwise:
        outputs = inputs
    before, after = product.channels(), (_part(product.ins, inputs), _part(product.outs, outputs))
    weights = {
        name: _cut(tensor, product, after) if name == product.weight
        else _cut_list(tensor, before[1], after[1])
        for name, tensor in kernel.weights.items()
    }  # fmt: skip
    groups = after[1] if product.depthwise else None
    nodes = tuple(_regrouped(node, groups) for node in kernel.nodes)
    read, made = (
        tuple(_thinner(tensor, product, after) for tensor in tensors)
        for tensors in (kernel.inputs, kernel.outputs)
    )
    return replace(kernel, nodes=nodes, weights=weights, inputs=read, outputs=made)


@dataclass(frozen=True)
class _Product:
    """The weighted operator of a kernel: where its weight keeps outputs and inputs."""

    weight: str
    source: str
    out_axis: int
    in_axis: int
    outs: int
    ins: int
    channel_axis: int
    depthwise: bool = False

    def channels(self) -> tuple[int, int]:
        return self.ins, self.outs

    @classmethod
    def of(cls, kernel: Kernel) -> _Product:
        node = next((n for n in kernel.nodes if n.op_type == kernel.op), None)
        if node is None or node.op_type not in _NARROWABLE:
            raise ModelError(f"{kernel} has no convolution or product to be narrowed")
        rigid = [n.op_type for n in kernel.nodes if n.op_type in _RIGID]
        if rigid:
            raise ModelError(f"{kernel} can't be narrowed: its {rigid[0]} has a shape of its own")
        makers = {name: n for n in kernel.nodes for name in n.output}
        weight, source = (_root(name, makers) for name in node.input[:2][::-1])
        if weight not in kernel.weights:
            raise ModelError(f"{kernel} multiplies two activations: there are no channels to cut")
        return cls._placed(node, weight, source, list(kernel.weights[weight].dims))

    @classmethod
    def _placed(cls, node: onnx.NodeProto, weight: str, source: str, dims: list[int]) -> _Product:
        about = {a.name: a.i for a in node.attribute}
        if node.op_type == "Conv":
            groups = about.get("group", 1)
            if groups > 1 and dims[1] > 1:
                raise ModelError(f"`{node.name}` is a convolution in groups: it can't be narrowed")
            ins = dims[0] if groups > 1 else dims[1]
            return cls(weight, source, 0, 1, dims[0], ins, 1, groups > 1)
        out_axis = 0 if about.get("transB") else len(dims) - 1
        in_axis = 1 - out_axis if len(dims) == 2 else len(dims) - 2
        return cls(weight, source, out_axis, in_axis, dims[out_axis], dims[in_axis], -1)


def _root(name: str, makers: Mapping[str, onnx.NodeProto]) -> str:
    """Return the constant, or the kernel's input, that a tensor comes from by coding alone."""
    while name in makers:
        name = makers[name].input[0]
    return name


def _part(count: int, share: float) -> int:
    return max(1, round(share * count))


def _cut(tensor: TensorProto, product: _Product, after: tuple[int, int]) -> TensorProto:
    values = numpy_helper.to_array(tensor)
    values = np.take(values, range(after[1]), product.out_axis)
    if not product.depthwise:
        values = np.take(values, range(after[0]), product.in_axis)
    return numpy_helper.from_array(np.ascontiguousarray(values), tensor.name)


def _cut_list(tensor: TensorProto, before: int, after: int) -> TensorProto:
    """Cut a constant that holds one number for each output channel; leave any other."""
    if before == 1 or before not in tensor.dims or _numbers(tensor) != before:
        return tensor
    values = numpy_helper.to_array(tensor)
    cut = np.take(values, range(after), list(tensor.dims).index(before))
    return numpy_helper.from_array(np.ascontiguousarray(cut), tensor.name)


def _numbers(tensor: TensorProto) -> int:
    return int(np.prod(list(tensor.dims), dtype=np.int64))


def _regrouped(node: onnx.NodeProto, groups: int | None) -> onnx.NodeProto:
    if groups is None or node.op_type != "Conv":
        return node
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    kept = [a for a in node.attribute if a.name != "group"]
    del copy.attribute[:]
    copy.attribute.extend([*kept, helper.make_attribute("group", groups)])
    return copy


def _thinner(tensor: Tensor, product: _Product, after: tuple[int, int]) -> Tensor:
    """Cut the channels of what comes in; a scalar, or what is broadcast, stays."""
    own = tensor.name == product.source
    count, wanted = (product.ins, after[0]) if own else (product.outs, after[1])
    axis = product.channel_axis % max(len(tensor.shape), 1)
    if len(tensor.shape) <= axis or tensor.shape[axis] != count:
        return tensor
    shape = (*tensor.shape[:axis], wanted, *tensor.shape[axis + 1 :])
    return replace(tensor, shape=shape)
