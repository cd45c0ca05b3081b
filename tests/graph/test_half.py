"""Half-precision arithmetic: what is converted, what stays, and what comes out."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from fettle.core.context import Context
from fettle.core.errors import ModelError
from fettle.core.shelf import PASSES
from fettle.testing import sample

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 48)).astype(np.float32)
W = RNG.normal(0, 0.1, (48, 20)).astype(np.float32)


class Heard:
    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)


def linear(build, weight=W):
    return build([("MatMul", ["x", "w"], ["y"])], {"w": weight}, {"x": ["n", 48]})


def test_arithmetic_is_half_and_the_interface_is_single(build, run):
    model = PASSES.make("graph.half")(linear(build).ir)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    product = next(node for node in model.graph if node.op_type == "MatMul")
    assert product.inputs[1].const_value.dtype == ir.DataType.FLOAT16
    assert model.graph.inputs[0].dtype == model.graph.outputs[0].dtype == ir.DataType.FLOAT
    halves = X.astype(np.float16).astype(np.float64), W.astype(np.float16).astype(np.float64)
    np.testing.assert_allclose(run(model, {"x": X})["y"], halves[0] @ halves[1], atol=4e-3)


def test_a_node_with_a_constant_past_the_range_stays_in_single(build, run):
    heard = Heard()
    half = PASSES.make("graph.half").within(Context(progress=heard))
    weight = W.copy()
    weight[0, 0] = 1e6
    model = half(linear(build, weight).ir)
    np.testing.assert_allclose(run(model, {"x": X})["y"], X @ weight, rtol=1e-4, atol=1e-3)
    assert "stay in float32" in heard.lines[0]


def test_a_node_whose_values_come_near_the_end_of_the_range_stays_in_single():
    """A network whose weights are scaled up overflows, unless data is there to say so."""
    plain = ir.load(sample().onnx)
    first = next(node for node in plain.graph if node.op_type == "Conv")
    for value in first.inputs[1:]:
        value.const_value = ir.tensor(value.const_value.numpy() * np.float32(20_000))
    expected = outputs(plain)
    blind = outputs(PASSES.make("graph.half")(plain.clone()))
    seeing = outputs(PASSES.make("graph.half")(plain.clone(), sample().task))
    assert not np.isfinite(blind).all() or np.abs(blind - expected).mean() > 0.05 * mean(expected)
    assert np.abs(seeing - expected).mean() < 0.01 * mean(expected)


def mean(array):
    return np.abs(array).mean()


def outputs(model):
    import onnxruntime as ort

    session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
    return session.run(None, sample().inputs(16))[0]


def test_named_operators_stay_in_single():
    model = PASSES.make("graph.half", keep="Gemm")(ir.load(sample().onnx))
    gemm = next(node for node in model.graph if node.op_type == "Gemm")
    assert gemm.inputs[1].const_value.dtype == ir.DataType.FLOAT


def test_the_file_is_about_half_as_large():
    before = len(sample().onnx.read_bytes())
    model = PASSES.make("graph.half")(ir.load(sample().onnx))
    assert len(ir.to_proto(model).SerializeToString()) < 0.6 * before


@pytest.mark.parametrize("path", ["master"])
def test_refuses_a_quantized_model(path):
    with pytest.raises(ModelError, match="quantized"):
        PASSES.make("graph.half")(ir.load(getattr(sample(), path)))
