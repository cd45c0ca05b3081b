"""Small graphs, two for each rule of TensorRT: one that breaks it and one that doesn't.

`CASES[rule]` is (severity, broken, sound). The linter is tried on them without NVIDIA's libraries
(`test_tensorrt_lint.py`), and NVIDIA's own parser and builder where they are installed
(`test_tensorrt_rtx.py`), so that a rule can't claim what TensorRT doesn't do.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

RNG = np.random.default_rng(0)
FLOAT, HALF, INT8, UINT8 = "float32", "float16", "int8", "uint8"


class Net:
    """A graph under construction: every method adds nodes and returns the name that they make."""

    def __init__(self, shape=(1, 16, 16, 16), dtype=FLOAT, opset=20):
        self.nodes, self.held, self.opset, self.count = [], {}, opset, 0
        self.shape, self.dtype, self.domains = shape, dtype, {}

    def hold(self, array, dtype=None):
        name = f"c{len(self.held)}"
        if isinstance(array, TensorProto):
            array.name = name
        self.held[name] = array if isinstance(array, TensorProto) else np.asarray(array, dtype)
        return name

    def add(self, op, *inputs, domain="", outputs=1, name="", **attributes):
        self.count += 1
        made = [f"t{self.count}_{i}" for i in range(outputs)]
        name = name or f"{op.lower()}_{self.count}"
        self.nodes.append(
            helper.make_node(op, list(inputs), made, name=name, domain=domain, **attributes)
        )
        if domain:
            self.domains[domain] = 1
        return made[0] if outputs == 1 else made

    def quantize(self, value, scale=0.05, zero=0, dtype=INT8, **attributes):
        """Return a QuantizeLinear and DequantizeLinear of an activation."""
        scale = self.hold(scale, FLOAT)
        held = zero if isinstance(zero, TensorProto) else np.asarray(zero, dtype)
        zero = self.hold(held)
        quantized = self.add("QuantizeLinear", value, scale, zero, **attributes)
        return self.add("DequantizeLinear", quantized, scale, zero, **attributes)

    def weight(self, shape, axis=0, scale=None, zero=0, dtype=INT8):
        """Return a DequantizeLinear of an integer weight, by channel along `axis`."""
        low, high = (-127, 128) if dtype == INT8 else (0, 255)
        numbers = self.hold(RNG.integers(low, high, shape).astype(dtype))
        count = shape[axis] if axis is not None else ()
        scale = self.hold(np.full(count, 0.01) if scale is None else scale, FLOAT)
        zero = self.hold(np.full(count, zero), dtype)
        attributes = {} if axis is None else {"axis": axis}
        return self.add("DequantizeLinear", numbers, scale, zero, **attributes)

    def floats(self, *shape, dtype=FLOAT):
        return self.hold(RNG.standard_normal(shape) * 0.1, dtype)

    def conv(self, value, weight=None, bias=None, **attributes):
        weight = weight or self.weight((16, 16, 3, 3))
        inputs = [value, weight, *([bias] if bias else [])]
        return self.add("Conv", *inputs, **{"pads": [1, 1, 1, 1], **attributes})

    def proto(self, output, dtype=TensorProto.FLOAT):
        elem = helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        x = helper.make_tensor_value_info("x", elem, self.shape)
        y = helper.make_tensor_value_info(output, dtype, None)
        held = [
            v if isinstance(v, TensorProto) else numpy_helper.from_array(v, k)
            for k, v in self.held.items()
        ]
        graph = helper.make_graph(self.nodes, "g", [x], [y], held)
        opsets = [helper.make_opsetid("", self.opset)]
        opsets += [helper.make_opsetid(d, v) for d, v in self.domains.items()]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        return onnx.shape_inference.infer_shapes(model)


def tensor(kind, *values):
    """Return a tensor of a type that numpy has not, empty of name."""
    return helper.make_tensor("", kind, [len(values)] if len(values) > 1 else [], values)


def convolution(**how):
    """Return a quantized convolution; `how` says what is unusual about it."""
    net = Net(how.pop("shape", (1, 16, 16, 16)))
    x = net.quantize("x", **how.pop("activation", {})) if how.pop("quantized", True) else "x"
    weight = net.weight((16, 16, 3, 3), **how.pop("weight", {}))
    return net.proto(net.conv(x, weight, **how))


def biased(integer):
    net = Net()
    x, w = net.quantize("x"), net.weight((16, 16, 3, 3))
    if integer:
        numbers = net.hold(np.arange(16), "int32")
        scale, zero = net.hold(np.full(16, 0.0005), FLOAT), net.hold(np.zeros(16), "int32")
        bias = net.add("DequantizeLinear", numbers, scale, zero, axis=0)
    else:
        bias = net.floats(16)
    return net.proto(net.conv(x, w, bias))


def typed(kind):
    """Return a convolution whose input is quantized to another type than int8."""
    net = Net(opset=21)
    x = net.quantize("x", zero=tensor(kind, 0), dtype=None)
    return net.proto(net.conv(x, net.floats(16, 16, 3, 3)))


def dynamically_quantized():
    net = Net()
    q, scale, zero = net.add("DynamicQuantizeLinear", "x", outputs=3)
    x = net.add("DequantizeLinear", q, scale, zero)
    return net.proto(net.conv(x, net.floats(16, 16, 3, 3)))


def integer_product():
    net = Net((4, 16))
    q = net.add("QuantizeLinear", "x", net.hold(0.05, FLOAT), net.hold(0, INT8))
    w = net.hold(RNG.integers(-127, 128, (16, 16)), INT8)
    product = net.add("MatMulInteger", q, w)
    return net.proto(net.add("Cast", product, to=TensorProto.FLOAT))


def integer_convolution():
    net = Net()
    q = net.add("QuantizeLinear", "x", net.hold(0.05, FLOAT), net.hold(0, INT8))
    w = net.hold(RNG.integers(-127, 128, (16, 16, 3, 3)), INT8)
    product = net.add("ConvInteger", q, w, pads=[1, 1, 1, 1])
    return net.proto(net.add("Cast", product, to=TensorProto.FLOAT))


def fused_convolution():
    net = Net()
    scale, zero = net.hold(0.05, FLOAT), net.hold(0, INT8)
    q = net.add("QuantizeLinear", "x", scale, zero)
    w = net.hold(RNG.integers(-127, 128, (16, 16, 3, 3)), INT8)
    parts = (scale, zero, w, net.hold(0.01, FLOAT), zero, scale, zero)
    y = net.add("QLinearConv", q, *parts, pads=[1, 1, 1, 1])
    return net.proto(net.add("DequantizeLinear", y, scale, zero))


def half_and_single(mixed):
    net = Net((4, 16))
    half = net.add("Cast", "x", to=TensorProto.FLOAT16)
    other = net.floats(16, dtype=FLOAT if mixed else HALF)
    y = net.add("Add", half, other)
    return net.proto(net.add("Cast", y, to=TensorProto.FLOAT))


def custom(domain="com.example"):
    net = Net((4, 16))
    return net.proto(net.add("Sharpen" if domain else "Relu", "x", domain=domain))


def strings():
    net = Net((4, 16))
    labels = net.hold(helper.make_tensor("", TensorProto.STRING, [2], [b"cat", b"dog"]))
    best = net.add("ArgMax", "x", axis=1, keepdims=0)
    least = net.add("Min", best, net.hold(1, "int64"))
    return net.proto(net.add("Gather", labels, least), TensorProto.STRING)


def dynamic(free):
    net = Net(("n" if free else 1, 16, 16, 16))
    return net.proto(net.add("Relu", "x"))


def linear(op="MatMul", axis=1, transposed=0):
    net = Net((64, 64))
    weight = net.weight((64, 64), axis=axis)
    kwargs = {"transB": transposed} if op == "Gemm" else {}
    return net.proto(net.add(op, net.quantize("x"), weight, **kwargs))


def transposed_convolution(axis):
    net = Net()
    weight = net.weight((16, 16, 2, 2), axis=axis)
    return net.proto(net.add("ConvTranspose", net.quantize("x"), weight, strides=[2, 2]))


def one_sided(side):
    net = Net()
    x = net.quantize("x") if side != "weight" else "x"
    w = net.weight((16, 16, 3, 3)) if side != "activation" else net.floats(16, 16, 3, 3)
    return net.proto(net.conv(x, w))


def rounded_twice(twice):
    net = Net()
    y = net.conv(net.quantize("x"))
    y = net.add("Relu", net.quantize(y) if twice else y)
    return net.proto(net.conv(net.quantize(y)))


def residual(skip, branch=False):
    """Return two convolutions and their sum with the first's output, or what is quantized of it."""
    net = Net()
    x = net.quantize("x")
    first = net.add("Relu", net.conv(x))
    quantized = net.quantize(first)
    y = net.conv(quantized)
    y = net.quantize(y) if branch else y
    y = net.add("Relu", net.add("Add", y, quantized if skip else first))
    return net.proto(net.conv(net.quantize(y)))


def last(quantized):
    net = Net()
    y = net.conv(net.quantize("x"))
    return net.proto(net.quantize(y) if quantized else y)


def unsupported(op):
    net = Net((4, 16))
    return net.proto(net.add(op, "x"))


def typed_tensor(kind):
    net = Net((4, 16))
    return net.proto(net.add("Cast", net.add("Cast", "x", to=kind), to=TensorProto.FLOAT))


def embedding(stray):
    """Return a table of int8 that is read by index, before or after it is dequantized."""
    net = Net((4, 16))
    index = net.add("Clip", net.add("Cast", "x", to=7), net.hold(0, "int64"), net.hold(9, "int64"))
    if not stray:
        return net.proto(net.add("Gather", net.weight((10, 16), axis=None), index))
    rows = net.add("Gather", net.hold(RNG.integers(-127, 128, (10, 16)), INT8), index)
    return net.proto(net.add("DequantizeLinear", rows, net.hold(0.01, FLOAT), net.hold(0, INT8)))


def without_zero_point():
    """Return a convolution that reads uint8, as ONNX has it where no zero point is given."""
    net = Net()
    scale = net.hold(0.05, FLOAT)
    quantized = net.add("QuantizeLinear", "x", scale)
    return net.proto(net.conv(net.add("DequantizeLinear", quantized, scale)))


def per_channel():
    scale = {"scale": np.full(16, 0.05), "zero": np.zeros(16), "axis": 1}
    return convolution(activation=scale)


def bad_scale(value):
    return convolution(weight={"scale": [value, *[0.01] * 15]})


def four_bits():
    net = Net(opset=21)
    x = net.quantize("x", zero=tensor(TensorProto.INT4, 0), dtype=None)
    return net.proto(net.conv(x))


def fake_quantized():
    net = Net()
    weight = net.quantize(net.floats(16, 16, 3, 3), np.full(16, 0.01), np.zeros(16), axis=0)
    return net.proto(net.conv(net.quantize("x"), weight))


def depthwise():
    net = Net()
    return net.proto(net.conv(net.quantize("x"), net.weight((16, 1, 3, 3)), group=16))


def two_activations():
    net = Net((64, 64))
    return net.proto(net.add("MatMul", net.quantize("x"), net.quantize(net.add("Abs", "x"))))


def transposed_weight():
    net = Net((64, 64))
    weight = net.add("Transpose", net.weight((64, 64), axis=0), perm=[1, 0])
    return net.proto(net.add("MatMul", net.quantize("x"), weight))


def pooled():
    net = Net()
    scale, zero = net.hold(0.05, FLOAT), net.hold(0, INT8)
    q = net.add("MaxPool", net.add("QuantizeLinear", "x", scale, zero), kernel_shape=[2, 2])
    return net.proto(net.conv(net.add("DequantizeLinear", q, scale, zero)))


def half_scales():
    net = Net()
    half = net.add("Cast", "x", to=TensorProto.FLOAT16)
    scale, zero = net.hold(0.05, HALF), net.hold(0, INT8)
    x = net.add("DequantizeLinear", net.add("QuantizeLinear", half, scale, zero), scale, zero)
    numbers = net.hold(RNG.integers(-127, 128, (16, 16, 3, 3)), INT8)
    parts = net.hold(np.full(16, 0.01), HALF), net.hold(np.zeros(16), INT8)
    weight = net.add("DequantizeLinear", numbers, *parts, axis=0)
    return net.proto(net.add("Cast", net.conv(x, weight), to=TensorProto.FLOAT))


CASES = {
    "zero-point": ("rejected", lambda: convolution(activation={"zero": 5}), convolution),
    "unsigned-weights": ("rejected", lambda: convolution(weight={"dtype": UINT8}), convolution),
    "scale": ("rejected", lambda: bad_scale(0.0), lambda: bad_scale(1e-6)),
    "integer-bias": ("rejected", lambda: biased(True), lambda: biased(False)),
    "quantized-type": ("rejected", lambda: typed(TensorProto.INT16), convolution),
    "integer-operator": ("rejected", fused_convolution, convolution),
    "unsupported-operator": (
        "rejected",
        lambda: unsupported("Bernoulli"),
        lambda: unsupported("Relu"),
    ),
    "custom-operator": ("rejected", custom, lambda: custom("")),
    "mixed-types": ("rejected", lambda: half_and_single(True), lambda: half_and_single(False)),
    "tensor-type": ("rejected", strings, lambda: typed_tensor(TensorProto.INT32)),
    "unsigned-tensor": (
        "rejected",
        lambda: typed_tensor(TensorProto.UINT8),
        lambda: typed_tensor(TensorProto.INT8),
    ),
    "stray-integers": ("rejected", lambda: embedding(True), lambda: embedding(False)),
    "narrow-activations": ("rejected", four_bits, convolution),
    "unsigned-activations": (
        "wrong",
        lambda: convolution(activation={"dtype": UINT8}),
        convolution,
    ),
    "per-channel-activations": ("float", per_channel, convolution),
    "convolution-axis": ("float", lambda: convolution(weight={"axis": 1}), convolution),
    "product-axis": ("float", lambda: linear(axis=0), linear),
    "one-sided": ("float", lambda: one_sided("weight"), lambda: one_sided("both")),
    "transposed-convolution": ("float", lambda: transposed_convolution(1), convolution),
    "rounded-twice": ("slower", lambda: rounded_twice(True), lambda: rounded_twice(False)),
    "quantized-branch": ("slower", lambda: residual(True, True), lambda: residual(True)),
    "float-residual": ("slower", lambda: residual(False), lambda: residual(True)),
    "quantized-result": ("slower", lambda: last(True), lambda: last(False)),
    "dynamic-input": ("note", lambda: dynamic(True), lambda: dynamic(False)),
}
# More ways to break a rule than one.
VARIANTS = {
    "zero-point": (
        lambda: convolution(activation={"zero": 128, "dtype": UINT8}),
        lambda: convolution(weight={"zero": 3}),
    ),
    "unsigned-weights": (lambda: convolution(weight={"dtype": UINT8, "zero": 128}),),
    "scale": (
        lambda: bad_scale(-0.01),
        lambda: bad_scale(np.nan),
        lambda: convolution(activation={"scale": 0.0}),
    ),
    "quantized-type": tuple(
        lambda kind=kind: typed(kind)
        for kind in (TensorProto.UINT16, TensorProto.UINT4, TensorProto.FLOAT8E5M2)
    ),
    "integer-operator": (dynamically_quantized, integer_product, integer_convolution),
    "tensor-type": tuple(
        lambda kind=kind: typed_tensor(kind)
        for kind in (TensorProto.INT16, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64)
    ),
    "unsigned-activations": (without_zero_point,),
    "convolution-axis": (lambda: convolution(weight={"axis": 2}),),
    "product-axis": (lambda: linear("Gemm", 0), lambda: linear("Gemm", 1, 1)),
    "one-sided": (lambda: one_sided("activation"),),
    "transposed-convolution": (
        lambda: transposed_convolution(0),
        lambda: transposed_convolution(None),
    ),
}
# What comes near to breaking a rule, and is fine.
SOUND = {
    "fake quantized weights": fake_quantized,
    "a scale for the whole weight": lambda: convolution(weight={"axis": None}),
    "depthwise": depthwise,
    "two activations": two_activations,
    "Gemm, transposed": lambda: linear("Gemm", 0, 1),
    "Gemm": lambda: linear("Gemm", 1),
    "a transposed weight": transposed_weight,
    "a pool of integers": pooled,
    "half-precision scales": half_scales,
}
