import numpy as np
import onnx
import onnx_ir as ir
import pytest

from fettle.core.errors import ModelError
from fettle.core.machine import Machine
from fettle.core.shelf import PASSES

F = np.float32
S, T = F(0.05), F(0.031)  # of the input and of the output
X = (np.arange(-140, 140, dtype=F) * S).reshape(-1, 4)  # every step of the input, and past it
KINDS = [np.int8, np.uint8]


def lowered(graph):
    result = PASSES.make("graph.lower_ort_x86_operators")(graph.ir)
    onnx.checker.check_model(ir.to_proto(result), full_check=True)
    return result


def framed(build, middle, kind, source="a", **more):
    """Quantize x, compute `middle` from `a` to `b`, quantize it."""
    zero = np.array(0 if kind is np.int8 else 128, kind)
    held = {"s": S, "t": T, "z": zero}
    return build(
        [("QuantizeLinear", ["x", "s", "z"], ["q"]),
         ("DequantizeLinear", ["q", "s", "z"], [source]),
         *middle,
         ("QuantizeLinear", ["b", "t", "z"], ["r"]),
         ("DequantizeLinear", ["r", "t", "z"], ["c"]),
         ("Identity", ["c"], ["y"])],
        held, **more,
    )  # fmt: skip


def inside():
    """The input as it is quantized, in float64."""
    return np.clip(np.rint(X.astype(float) / S), -128, 127) * S


def hard(x):
    return np.clip(x / 6 + 0.5, 0, 1)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("middle", "gate"),
    [
        ([("HardSwish", ["a"], ["b"])], hard),
        ([("HardSigmoid", ["a"], ["g"], {"alpha": 1 / 6}), ("Mul", ["a", "g"], ["b"])], hard),
        ([("Sigmoid", ["a"], ["g"]), ("Mul", ["g", "a"], ["b"])], sigmoid),
    ],
    ids=["hard-swish", "its parts", "silu"],
)
def test_a_swish_is_right_to_a_step_and_its_gate_to_half_of_1_255(build, run, middle, gate, kind):
    result = lowered(framed(build, middle, kind))
    assert "HardSwish" not in {node.op_type for node in result.graph}
    x = inside()
    exact = np.clip(x * gate(x), -128 * T, 127 * T)
    error = np.abs(run(result, {"x": X})["y"] - exact)
    assert (error <= T / 2 + np.abs(x) / 510 + 1e-5).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("alpha", "beta"), [(1 / 6, 0.5), (0.2, 0.5), (0.3, 0.25)])
def test_a_hard_sigmoid_is_right_to_half_of_1_255(build, run, alpha, beta, kind):
    graph = framed(build, [("HardSigmoid", ["a"], ["b"], {"alpha": alpha, "beta": beta})], kind)
    result = lowered(graph)
    assert "HardSigmoid" not in {node.op_type for node in result.graph}
    exact = np.clip(alpha * inside() + beta, 0, 1)
    # quantized once, to its own steps, not a second time to the master's coarser ones
    assert np.abs(run(result, {"x": X})["y"] - exact).max() <= 1 / 510 + 1e-6


@pytest.mark.parametrize("keep", [0, 1])
def test_a_spatial_mean_becomes_a_pool(build, run, keep):
    view = [("Flatten", ["m"], ["b"])] if keep else []
    made = "m" if keep else "b"
    middle = [("ReduceMean", ["a", "axes"], [made], {"keepdims": keep}), *view]
    zero = np.array(0, np.int8)
    graph = build(
        [("QuantizeLinear", ["x", "s", "z"], ["q"]), ("DequantizeLinear", ["q", "s", "z"], ["a"]),
         *middle,
         ("QuantizeLinear", ["b", "t", "z"], ["r"]), ("DequantizeLinear", ["r", "t", "z"], ["y"])],
        {"s": S, "t": T, "z": zero, "axes": np.array([-1, 2])}, inputs={"x": [2, 3, 5, 4]},
    )  # fmt: skip
    result = lowered(graph)
    assert "ReduceMean" not in {node.op_type for node in result.graph}
    x = np.random.default_rng(0).normal(0, 2, (2, 3, 5, 4)).astype(F)
    found, expected = (run(m, {"x": x})["y"] for m in (result, graph.proto))
    assert found.shape == expected.shape == (2, 3)
    assert np.abs(found - expected).max() <= T * 1.001  # a tie at most
    assert (found == expected).mean() > 0.5


@pytest.mark.parametrize(
    "middle",
    [
        [("ReduceMean", ["a", "axes"], ["b"], {"keepdims": 1})],  # over channels
        [("Softplus", ["a"], ["b"])],
    ],
)
def test_what_it_does_not_know_is_left_as_it_is(build, run, middle):
    zero = np.array(0, np.int8)
    graph = build(
        [("QuantizeLinear", ["x", "s", "z"], ["q"]), ("DequantizeLinear", ["q", "s", "z"], ["a"]),
         *middle,
         ("QuantizeLinear", ["b", "t", "z"], ["r"]), ("DequantizeLinear", ["r", "t", "z"], ["y"])],
        {"s": S, "t": T, "z": zero, "axes": np.array([1])}, inputs={"x": [2, 3, 5, 4]},
    )  # fmt: skip
    x = np.random.default_rng(0).normal(0, 2, (2, 3, 5, 4)).astype(F)
    found, expected = (run(m, {"x": x})["y"] for m in (lowered(graph), graph.proto))
    np.testing.assert_array_equal(found, expected)


def test_a_gate_in_float_is_left_alone(build):
    graph = build(
        [("QuantizeLinear", ["x", "s", "z"], ["q"]), ("DequantizeLinear", ["q", "s", "z"], ["a"]),
         ("HardSwish", ["a"], ["y"])],
        {"s": S, "z": np.array(0, np.int8)},
    )  # fmt: skip
    assert [n.op_type for n in lowered(graph).graph][-1] == "HardSwish"


def test_a_float_model_is_refused(build):
    with pytest.raises(ModelError, match="quantize it first"):
        lowered(build([("HardSwish", ["x"], ["y"])]))


def test_it_suits_any_x86():
    cls = PASSES.load("graph.lower_ort_x86_operators")
    assert cls.suits(Machine("cpu", "x86_64", ("avx2",), 1))
    assert not cls.suits(Machine("cpu", "aarch64", (), 1))


def gated_layer(build, bias, also_read=False):
    """A quantized convolution, and a hard-sigmoid of what it makes."""
    rng = np.random.default_rng(3)
    held = {"s": S, "t": T, "e": F(1 / 127), "z": np.array(0, np.int8),
            "w": rng.integers(-127, 128, (5, 4, 1, 1)).astype(np.int8), "v": np.full(5, 0.01, F),
            "u": np.zeros(5, np.int8), "o": rng.normal(0, 1, 5).astype(F)}  # fmt: skip
    last = ("Add", ["h", "n"], ["y"]) if also_read else ("Identity", ["h"], ["y"])
    return held, build(
        [("QuantizeLinear", ["x", "s", "z"], ["q"]), ("DequantizeLinear", ["q", "s", "z"], ["a"]),
         ("DequantizeLinear", ["w", "v", "u"], ["d"], {"axis": 0}),
         ("Conv", ["a", "d", "o"] if bias else ["a", "d"], ["c"]),
         ("QuantizeLinear", ["c", "t", "z"], ["m"]), ("DequantizeLinear", ["m", "t", "z"], ["n"]),
         ("HardSigmoid", ["n"], ["g"], {"alpha": 1 / 6}),
         ("QuantizeLinear", ["g", "e", "z"], ["p"]), ("DequantizeLinear", ["p", "e", "z"], ["h"]),
         last],
        held, inputs={"x": ["n", 4, 1, 1]},
    )  # fmt: skip


@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution_makes_its_gate_by_saturating(build, run, bias):
    held, graph = gated_layer(build, bias)
    result = lowered(graph)
    assert not {"Add", "HardSigmoid"} & {node.op_type for node in result.graph}
    weight = held["w"].reshape(5, 4) * held["v"].astype(float)[:, None]
    made = inside() @ weight.T + (held["o"] if bias else 0)
    found = run(result, {"x": X[:, :, None, None]})["y"].reshape(-1, 5)
    assert np.abs(found - hard(made)).max() <= 1 / 510 + 1e-6


def test_a_convolution_that_others_read_keeps_its_own_scale(build):
    _, graph = gated_layer(build, True, also_read=True)
    result = lowered(graph)
    assert any(node.name and "shifted" in node.name for node in result.graph)
