"""Clipping of calibrated tensors: counted by hand, its alarms by simulation."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fettle.core.errors import DataError, InputError, ModelError
from fettle.monitor.ranges import Range, SideSession, calibrated, judged, saturation


@pytest.fixture
def model(tmp_path):
    """x → Q/DQ (±12.75) → ×2 → Relu → Q/DQ (0 … 10.2) → y, of rows of 50."""
    constants = {
        "s1": np.float32(0.1), "z1": np.int8(0), "two": np.float32(2), "s2": np.float32(0.04),
        "z2": np.uint8(0),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s1", "z1"], ["q1"], "first"),
        helper.make_node("DequantizeLinear", ["q1", "s1", "z1"], ["d1"]),
        helper.make_node("Mul", ["d1", "two"], ["m"]),
        helper.make_node("QuantizeLinear", ["m", "s2", "z2"], ["q2"], "second"),
        helper.make_node("DequantizeLinear", ["q2", "s2", "z2"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 50]) for n in "xy"]
    held = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], held)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path = tmp_path / "model.onnx"
    onnx.save(made, path)
    return path


def rows(seed, n, scale):
    return {"x": np.random.default_rng(seed).normal(0, scale, (n, 50)).astype(np.float32)}


def test_ranges_are_read_from_the_file(model):
    first, second = calibrated(onnx.load(model))
    assert (first.tensor, first.layer) == ("x", "first")
    assert (first.low, first.high) == (pytest.approx(-12.85), pytest.approx(12.75))
    assert (second.low, second.high) == (-np.inf, pytest.approx(255.5 * 0.04))


def test_shares_are_those_that_quantizing_clips(model):
    inputs = rows(0, 37, 6.0)
    with SideSession(model) as side:
        found = side.clipped(inputs)
    x = inputs["x"]
    rounded = np.round(x / np.float32(0.1))
    assert found["x"] == pytest.approx(((rounded < -128) | (rounded > 127)).mean(1))
    doubled = 2 * np.clip(rounded, -128, 127) * 0.1
    assert found["m"] == pytest.approx((np.round(doubled / 0.04) > 255).mean(1))


def test_what_left_the_ranges_is_told_and_what_stays_is_not(model):
    with SideSession(model) as side:
        clean = saturation(side, rows(1, 64, 4.0), rows(2, 40, 4.0))
        wide = saturation(side, rows(1, 64, 4.0), rows(3, 40, 8.0))
    assert not any(layer.alarm for layer in clean)
    assert all(layer.alarm for layer in wide)
    assert wide[0].clipped > wide[0].reference
    assert wide[0].to_json()["past"] > 0.5


def test_false_alarms_are_as_many_as_promised():
    """600 clean samples over three layers: at most 5 % alarm in any."""
    random = np.random.default_rng(4)
    ranges = tuple(Range(name, name, 0, 1) for name in "abc")
    alarms = 0
    for _ in range(600):
        before = {name: random.random(60) for name in "abc"}
        now = {name: random.random(30) for name in "abc"}
        alarms += any(layer.alarm for layer in judged(ranges, before, now))
    assert 0.01 < alarms / 600 <= 0.06


def test_constant_activations_never_alarm():
    ranges = (Range("a", "a", 0, 1),)
    zeros = {"a": np.zeros(20)}
    (layer,) = judged(ranges, zeros, zeros)
    assert layer.p == 1


def test_nan_counts_as_clipped(model):
    inputs = rows(5, 4, 1.0)
    inputs["x"][1] = np.nan
    with SideSession(model) as side:
        assert side.clipped(inputs)["x"].tolist() == [0, 1, 0, 0]


def test_bad_input(model, tmp_path):
    with SideSession(model) as side:
        with pytest.raises(InputError):
            side.clipped({"x": np.zeros((2, 3), np.float32)})
        with pytest.raises(DataError, match="got none"):
            side.clipped(rows(6, 0, 1.0))
        with pytest.raises(DataError, match="at least 8"):
            saturation(side, rows(6, 4, 1.0), rows(6, 4, 1.0))
    plain = onnx.load(model)
    del plain.graph.node[:2], plain.graph.node[1:]
    plain.graph.node[0].input[0], plain.graph.node[0].output[0] = "x", "y"
    onnx.save(plain, tmp_path / "float.onnx")
    with pytest.raises(ModelError, match="no calibrated activations"):
        SideSession(tmp_path / "float.onnx")
