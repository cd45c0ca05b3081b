import numpy as np
import onnxruntime as ort
import pytest

from fettle.core.errors import ModelError
from fettle.core.machine import Machine
from fettle.core.shelf import PASSES

F = np.float32
RNG = np.random.default_rng(0)
X = RNG.normal(0, 1.5, (3, 6, 16)).astype(F)
W = RNG.integers(-127, 128, (8, 16)).astype(np.int8)  # outputs, inputs
SCALES = RNG.uniform(0.001, 0.02, 8).astype(F)
B = RNG.normal(0, 1, 8).astype(F)
S = F(0.03)
KINDS = [(np.int8, 0), (np.uint8, 128), (np.uint8, 0)]


def lowered(graph):
    return PASSES.make("graph.lower_ort_x86_products")(graph.ir)


def linear(build, zero, transposed=False, bias=B, tail=(), order=("m", "o")):
    """Return y = quantized x · w + bias; the weight is stored as (inputs, outputs) or turned."""
    held = {"s": S, "z": zero, "w": W if transposed else np.ascontiguousarray(W.T), "t": SCALES,
            "u": np.zeros(8, np.int8), "o": bias}  # fmt: skip
    turn = [("Transpose", ["d"], ["f"], {"perm": [1, 0]})] if transposed else []
    weight = "f" if transposed else "d"
    made = "r" if tail else "y"
    return build(
        [("QuantizeLinear", ["x", "s", "z"], ["q"]), ("DequantizeLinear", ["q", "s", "z"], ["a"]),
         ("DequantizeLinear", ["w", "t", "u"], ["d"], {"axis": 0 if transposed else 1}), *turn,
         ("MatMul", ["a", weight], ["m"]), ("Add", list(order), [made]), *tail],
        held, inputs={"x": [3, 6, 16]},
    )  # fmt: skip


def exact(zero):
    low, high = np.iinfo(zero.dtype).min, np.iinfo(zero.dtype).max
    steps = np.clip(np.rint(X.astype(float) / S) + int(zero), low, high) - int(zero)
    return (steps @ W.T.astype(float)) * (float(S) * SCALES.astype(float)) + B


def kinds(model):
    return [node.op_type for node in model.graph]


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("kind", "number"), KINDS)
def test_a_product_takes_its_bias_in(build, run, kind, number, transposed):
    zero = np.array(number, kind)
    result = lowered(linear(build, zero, transposed))
    assert kinds(result) == ["QuantizeLinear", "MatMulIntegerToFloat"]
    np.testing.assert_allclose(run(result, {"x": X})["y"], exact(zero), rtol=1e-5, atol=1e-5)


def test_the_bias_may_come_first(build, run):
    zero = np.array(128, np.uint8)
    result = lowered(linear(build, zero, order=("o", "m")))
    assert "Add" not in kinds(result)
    np.testing.assert_allclose(run(result, {"x": X})["y"], exact(zero), rtol=1e-5, atol=1e-5)


def test_what_is_no_vector_over_the_outputs_is_still_added(build, run):
    graph = linear(build, np.array(128, np.uint8), bias=np.ones((6, 8), F))
    result = lowered(graph)
    assert "Add" in kinds(result)
    np.testing.assert_array_equal(run(result, {"x": X})["y"], run(graph.proto, {"x": X})["y"])


def test_a_product_that_others_read_too_keeps_its_addition(build, run):
    graph = linear(build, np.array(0, np.uint8), tail=[("Mul", ["r", "m"], ["y"])])
    result = lowered(graph)
    assert "MatMul" in kinds(result)
    np.testing.assert_array_equal(run(result, {"x": X})["y"], run(graph.proto, {"x": X})["y"])


def sums(build, other):
    """The quantized x + another tensor, behind a ReLU."""
    return build(
        [("QuantizeLinear", ["x", "s", "z"], ["q"]), ("DequantizeLinear", ["q", "s", "z"], ["a"]),
         ("Softplus", ["x"], ["t"]),
         ("QuantizeLinear", ["t", "s", "z"], ["p"]), ("DequantizeLinear", ["p", "s", "z"], ["b"]),
         ("Sum", [other, "a"], ["r"]), ("Relu", ["r"], ["y"])],
        {"s": S, "z": np.array(0, np.int8)},
    )  # fmt: skip


def test_a_sum_in_float_reads_what_was_not_rounded(build, run):
    x = RNG.normal(0, 1, (8, 4)).astype(F)
    found = run(lowered(sums(build, "t")), {"x": x})["y"]
    exact = np.log1p(np.exp(x.astype(float))) + x
    np.testing.assert_allclose(found, np.maximum(exact, 0), rtol=1e-5)


def test_a_sum_of_integers_is_left_alone(build):
    graph = sums(build, "b")
    assert kinds(lowered(graph)) == [node.op_type for node in graph.proto.graph.node]


def test_onnxruntime_runs_it_optimized(build):
    import onnx_ir as ir

    zero = np.array(128, np.uint8)
    content = ir.to_proto(lowered(linear(build, zero, True))).SerializeToString()
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"x": X})[0], exact(zero), rtol=1e-5, atol=1e-5)


def test_a_float_model_is_refused(build):
    with pytest.raises(ModelError, match="quantize it first"):
        lowered(build([("Relu", ["x"], ["y"])]))


def test_it_suits_any_x86():
    cls = PASSES.load("graph.lower_ort_x86_products")
    assert cls.suits(Machine("cpu", "x86_64", (), 1))
    assert not cls.suits(Machine("cpu", "aarch64", (), 1))
