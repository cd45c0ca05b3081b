"""Reading a QDQ graph: which activations are quantized, where, and with what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir


@dataclass(frozen=True)
class ActivationQuantizer:
    """One QuantizeLinear of an activation and the DequantizeLinear nodes that read it."""

    node: ir.Node
    readers: tuple[ir.Node, ...]
    scale: np.float32

    @property
    def source(self) -> ir.Value:
        """The float tensor that is quantized."""
        value = self.node.inputs[0]
        assert value is not None
        return value

    @property
    def output(self) -> ir.Value:
        """The quantized tensor."""
        return self.node.outputs[0]

    @property
    def nodes(self) -> tuple[ir.Node, ...]:
        """Every node that names the scale and the zero point."""
        return (self.node, *self.readers)


def activation_quantizers(graph: ir.Graph) -> Iterator[ActivationQuantizer]:
    """Yield the symmetric per-tensor int8 quantizers of activations in `graph`.

    One whose quantized tensor is read by anything but a DequantizeLinear of the same scale and
    zero point is passed over.
    """
    for node in list(graph):
        if node.op_type != "QuantizeLinear" or len(node.inputs) < 3:
            continue
        scale, zero = constant_of(node.inputs[1]), constant_of(node.inputs[2])
        readers = tuple(usage.node for usage in node.outputs[0].uses())
        symmetric = zero is not None and zero.dtype == np.int8 and not zero.any()
        by_tensor = scale is not None and scale.size == 1
        plain = all(_undoes(reader, node) for reader in readers)
        if symmetric and by_tensor and plain and not node.outputs[0].is_graph_output():
            assert scale is not None
            yield ActivationQuantizer(node, readers, np.float32(scale.reshape(())))


def _undoes(reader: ir.Node, quantize: ir.Node) -> bool:
    """Say whether `reader` is a DequantizeLinear with the very numbers of `quantize`."""
    return reader.op_type == "DequantizeLinear" and same_numbers(reader, quantize)


def same_numbers(a: ir.Node, b: ir.Node) -> bool:
    """Say whether two quantizing nodes have the same scale and the same zero point."""
    if len(a.inputs) < 3 or len(b.inputs) < 3:
        return False
    pairs = zip(a.inputs[1:3], b.inputs[1:3], strict=True)
    return all(x is y or _equal(constant_of(x), constant_of(y)) for x, y in pairs)


def _equal(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    return a is not None and b is not None and a.dtype == b.dtype and np.array_equal(a, b)


def constant_of(value: ir.Value | None) -> np.ndarray | None:
    """Return the array behind a value that is an initializer or a Constant, else None."""
    if value is None:
        return None
    if value.const_value is not None:
        return value.const_value.numpy()
    producer = value.producer()
    if producer is not None and producer.op_type == "Constant":
        attribute = producer.attributes.get("value")
        return attribute.as_tensor().numpy() if attribute is not None else None
    return None


def only_quantized(value: ir.Value) -> bool:
    """Say whether quantizers are all that reads `value`."""
    readers = [usage.node for usage in value.uses()]
    quantizes = bool(readers) and all(node.op_type == "QuantizeLinear" for node in readers)
    return quantizes and not value.is_graph_output()


def weighted_nodes(graph: ir.Graph) -> Iterator[ir.Node]:
    """Yield the convolutions and linear layers of `graph` whose weight is quantized, in order.

    The weight may be transposed after it was dequantized, as that of torch's linear layers is.
    """
    for node in graph:
        if node.op_type not in {"Conv", "Gemm", "MatMul", "ConvTranspose"}:
            continue
        maker = node.inputs[1].producer() if node.inputs[1] is not None else None
        if maker is not None and maker.op_type == "Transpose":
            maker = maker.inputs[0].producer() if maker.inputs[0] is not None else None
        if maker is None or maker.op_type != "DequantizeLinear":
            continue
        if constant_of(maker.inputs[0]) is not None:
            yield node
