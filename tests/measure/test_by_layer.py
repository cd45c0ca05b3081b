"""Time by weighted layer: every row of an engine is charged once, on a session that is played."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fettle.measure.by_layer import time_by_layer
from fettle.runtimes import LayerPrecision, LayerTime
from fettle.runtimes.onnxruntime import OnnxRuntime


@pytest.fixture
def model(tmp_path):
    """Two convolutions with a ReLU and a pool between, and a product at the end."""
    rng = np.random.default_rng(0)
    weights = {
        "stem.weight": rng.normal(size=(4, 1, 3, 3)),
        "body.0.weight": rng.normal(size=(4, 4, 3, 3)),
        "head.weight": rng.normal(size=(4, 3)),
    }
    nodes = [
        helper.make_node("Conv", ["x", "stem.weight"], ["a"], name="node_1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], name="node_2"),
        helper.make_node("Conv", ["b", "body.0.weight"], ["c"], name="node_3", pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["c"], ["d"], name="node_4"),
        helper.make_node("Flatten", ["d"], ["e"], name="node_5"),
        helper.make_node("MatMul", ["e", "head.weight"], ["y"], name="node_6"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()],
    )
    path = tmp_path / "m.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )
    return path


class PlayedSession:
    """Rows as an engine would tell them, with a reorder before all and one between."""

    rows = (
        ("reorder", "Reorder", 1.0, ""),
        ("node_1", "Conv", 10.0, "int8"),
        ("node_2", "Relu", 2.0, "f32"),
        ("convert_7", "Convert", 3.0, ""),
        ("node_3", "Conv", 20.0, "f32"),
        ("node_4", "Pool", 4.0, "f32"),
        ("node_6", "MatMul", 5.0, "int8"),
    )

    def layers(self):
        return [LayerPrecision(name, op, precision) for name, op, _, precision in self.rows]

    def layer_times(self, inputs, runs):
        return [LayerTime(name, op, ms) for name, op, ms, _ in self.rows]


INPUTS = {"x": np.zeros((2, 1, 8, 8), np.float32)}


def test_all_time_is_charged_to_the_layer_before(model):
    found = time_by_layer(model, PlayedSession(), INPUTS)
    assert [layer.ms for layer in found] == [1 + 10 + 2 + 3, 20 + 4, 5]
    assert [layer.precision for layer in found] == ["int8", "f32", "int8"]
    assert [layer.op for layer in found] == ["Conv", "Conv", "MatMul"]


def test_layers_know_their_modules(model):
    names = [layer.names for layer in time_by_layer(model, PlayedSession(), INPUTS)]
    assert "stem" in names[0]
    assert "body.0" in names[1]
    assert "head" in names[2]


def test_an_engine_that_tells_no_times_has_no_layers(model):
    class Mute(PlayedSession):
        def layer_times(self, inputs, runs):
            return []

    assert time_by_layer(model, Mute(), INPUTS) == []


def test_a_real_engine(model):
    session = OnnxRuntime(threads=1).build(model)
    found = time_by_layer(model, session, INPUTS, runs=3)
    assert [layer.op for layer in found] == ["Conv", "Conv", "MatMul"]
    assert all(layer.ms > 0 for layer in found)
    assert found[0].macs == 64 * 4 * 9 * 2 or found[0].macs == 64 * 4 * 9
