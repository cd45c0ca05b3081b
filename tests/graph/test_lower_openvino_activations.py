import numpy as np
import onnx
import onnx_ir as ir
import pytest

from fettle.core.errors import ModelError
from fettle.core.shelf import PASSES

F = np.float32
RNG = np.random.default_rng(0)
X = RNG.normal(0, 2, (64, 4)).astype(F)
W = RNG.integers(-127, 128, (4, 4)).astype(np.int8)
HELD = {"s": F(0.05), "t": F(0.07), "z": np.array(0, np.int8), "w": W, "v": np.full(4, 0.01, F),
        "u": np.zeros(4, np.int8)}  # fmt: skip


def lowered(graph):
    result = PASSES.make("graph.lower_openvino_activations")(graph.ir)
    onnx.checker.check_model(ir.to_proto(result), full_check=True)
    return result


def pair(source, name, scale="s"):
    return [("QuantizeLinear", [source, scale, "z"], [f"{name}_q"]),
            ("DequantizeLinear", [f"{name}_q", scale, "z"], [name])]  # fmt: skip


def layer(build, middle):
    """x is quantized and multiplied, the product quantized; `middle` makes b of it."""
    return build(
        [*pair("x", "a"), ("DequantizeLinear", ["w", "v", "u"], ["f"], {"axis": 1}),
         ("MatMul", ["a", "f"], ["m"]), *pair("m", "n", "t"), *middle, *pair("b", "y")],
        HELD,
    )  # fmt: skip


def product():
    """The layer's result in float64."""
    inside = np.clip(np.rint(X.astype(float) / F(0.05)), -128, 127) * float(F(0.05))
    return inside @ (W * float(F(0.01)))


def rounded(values):
    return np.clip(np.rint(values / F(0.05)), -128, 127) * float(F(0.05))


def hard(x):
    return np.clip(x / 6 + 0.5, 0, 1)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize(
    ("middle", "function", "pairs"),
    [
        ([("HardSwish", ["n"], ["b"])], lambda x: x * hard(x), 2),
        ([("LeakyRelu", ["n"], ["b"])], lambda x: np.where(x < 0, 0.01 * x, x), 2),
        ([("Sigmoid", ["n"], ["g"]), ("Mul", ["n", "g"], ["b"])], lambda x: x * sigmoid(x), 2),
        ([("Sigmoid", ["n"], ["g"]), *pair("g", "h"), ("Mul", ["h", "n"], ["b"])],
         lambda x: x * sigmoid(x), 2),
    ],
    ids=["hard-swish", "leaky", "silu", "silu with a quantized gate"],
)  # fmt: skip
def test_a_function_reads_what_the_layer_makes(build, run, middle, function, pairs):
    result = lowered(layer(build, middle))
    assert sum(node.op_type == "QuantizeLinear" for node in result.graph) == pairs
    exact = rounded(function(product()))
    found = run(result, {"x": X})["y"]
    assert np.abs(found - exact).max() <= 0.0501  # a tie at most
    assert (np.abs(found - exact) < 1e-4).mean() > 0.98


@pytest.mark.parametrize("gate", ["HardSigmoid", "Sigmoid"])
def test_a_gate_is_not_rounded_before_its_product(build, run, gate):
    graph = layer(build, [(gate, ["x"], ["g"]), *pair("g", "h"), ("Mul", ["n", "h"], ["b"])])
    result = lowered(graph)
    mul = next(node for node in result.graph if node.op_type == "Mul")
    assert [value.producer().op_type for value in mul.inputs] == ["DequantizeLinear", gate]


@pytest.mark.parametrize(
    "middle",
    [
        [("Add", ["n", "n"], ["b"])],
        [("HardSwish", ["n"], ["k"]), ("Add", ["k", "n"], ["b"])],
        [("Relu", ["n"], ["r"]), *pair("r", "p"), ("HardSwish", ["p"], ["b"])],
    ],
    ids=["no function", "read by a sum too", "no layer before it"],
)
def test_other_pairs_are_kept(build, run, middle):
    graph = layer(build, middle)
    result = lowered(graph)
    assert len(result.graph) == len(graph.proto.graph.node)
    np.testing.assert_array_equal(run(result, {"x": X})["y"], run(graph.proto, {"x": X})["y"])


def test_a_float_model_is_refused(build):
    with pytest.raises(ModelError, match="quantize it first"):
        lowered(build([("HardSwish", ["x"], ["y"])]))
