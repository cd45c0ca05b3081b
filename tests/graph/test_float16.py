import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from fettle.core.context import Context
from fettle.core.errors import ModelError
from fettle.core.shelf import PASSES

F = np.float32
RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 48)).astype(F)


def weight(*shape):
    return RNG.normal(0, 0.1, shape).astype(F)


class Heard:
    """A reporter that keeps what is said."""

    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)


def halved(graph, heard=None):
    made = PASSES.make("graph.float16")
    if heard is not None:
        made = made.within(Context(progress=heard))
    model = made(graph.ir)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    return model


def linear(build, w):
    return build([("MatMul", ["x", "w"], ["y"])], {"w": w}, {"x": ["n", 48]})


def test_weights_are_rounded_to_half_and_arithmetic_is_single(build, run):
    w = weight(48, 20)
    model = halved(linear(build, w))
    assert model.graph.initializers["w_half"].dtype == ir.DataType.FLOAT16
    assert "w" not in model.graph.initializers
    expected = X.astype(np.float64) @ w.astype(np.float16).astype(np.float64)
    np.testing.assert_allclose(run(model, {"x": X})["y"], expected, atol=1e-6)


def test_the_file_is_half_as_large(build):
    graph = linear(build, weight(48, 4000))
    size = len(ir.to_proto(halved(graph)).SerializeToString())
    assert size == pytest.approx(graph.proto.ByteSize() / 2, rel=0.01)


@pytest.mark.parametrize("far", [65_520.0, -1e6])
def test_what_float16_cannot_hold_stays_in_single_and_is_named(build, run, far):
    w = weight(48, 48)
    w[2, 3] = far
    graph = build(
        [("MatMul", ["x", "w"], ["h"]), ("MatMul", ["h", "v"], ["y"])],
        {"w": w, "v": weight(48, 20)},
        {"x": ["n", 48]},
    )
    heard = Heard()
    model = halved(graph, heard)
    assert [line for line in heard.lines if "`w`" in line] == heard.lines != []
    assert set(model.graph.initializers) == {"w", "v_half"}


@pytest.mark.parametrize("far", [65_504.0, 65_519.0])
def test_the_last_number_that_fits_is_halved(build, far):
    w = weight(48, 20)
    w[0, 0] = far
    assert "w_half" in halved(linear(build, w)).graph.initializers


def test_numbers_that_would_vanish_stay_in_single(build):
    with pytest.raises(ModelError, match=r"graph\.float16.*can hold"):
        halved(linear(build, weight(48, 20) * F(1e-6)))


def test_nothing_to_store_is_refused(build):
    with pytest.raises(ModelError, match=r"graph\.float16"):
        halved(build([("MatMul", ["x", "w"], ["y"])], {"w": weight(4, 4)}))


def test_a_shared_weight_is_stored_once(build, run):
    graph = build(
        [("Add", ["x", "w"], ["a"]), ("MatMul", ["a", "w"], ["y"])],
        {"w": weight(48, 48)},
        {"x": [48, 48]},
    )
    model = halved(graph)
    assert [node.op_type for node in model.graph] == ["Cast", "Add", "MatMul"]
    x = RNG.normal(size=(48, 48)).astype(F)
    assert np.abs(run(model, {"x": x})["y"] - run(graph.proto, {"x": x})["y"]).max() < 0.01


def test_a_constant_node_is_stored_in_half(build, run):
    tensor = numpy_helper.from_array(weight(48, 20))
    graph = build(
        [("Constant", [], ["w"], {"value": tensor}), ("MatMul", ["x", "w"], ["y"])],
        inputs={"x": ["n", 48]},
    )
    model = halved(graph)
    assert "Constant" not in [node.op_type for node in model.graph]
    assert len(ir.to_proto(model).SerializeToString()) < 0.7 * graph.proto.ByteSize()
    assert np.abs(run(model, {"x": X})["y"] - run(graph.proto, {"x": X})["y"]).max() < 0.01


def test_scales_of_a_quantizer_stay_in_single(build):
    graph = build(
        [("DequantizeLinear", ["q", "s"], ["w"], {"axis": 1}), ("MatMul", ["x", "w"], ["y"])],
        {"q": np.ones((48, 300), np.int8), "s": np.full(300, 0.1, F)},
        {"x": ["n", 48]},
    )
    with pytest.raises(ModelError, match="found no float32 weights"):
        halved(graph)


def test_openvino_computes_the_same(build, run):
    openvino = pytest.importorskip("openvino")
    model = halved(linear(build, weight(48, 20)))
    core = openvino.Core()
    network = core.read_model(ir.to_proto(model).SerializeToString())
    found = core.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})({"x": X})[0]
    np.testing.assert_allclose(found, run(model, {"x": X})["y"], atol=1e-5)
