import json

import numpy as np
import pytest
from onnx import helper

from fettle.core.errors import InputError
from fettle.measure._matching import matched
from fettle.measure._traffic import traffic_of
from fettle.measure.peaks import Peak, Peaks
from fettle.measure.profile import joined, profile
from fettle.runtimes import LayerPrecision, LayerTime, Session
from fettle.runtimes.onnxruntime import OnnxRuntime
from fettle.runtimes.openvino import OpenVino

NODE = helper.make_node
PEAKS = Peaks(1, {"f32": Peak(1e12, "", ""), "int8": Peak(1e12, "", "")}, ((0, 1e12),), {})
ENGINES = [OnnxRuntime(threads=1), OpenVino(threads=1)]


class Told(Session):
    """An engine that tells what the test wants it to."""

    inputs = outputs = ()

    def __init__(self, layers, times=()):
        self.told, self.times = layers, times

    def run(self, inputs):
        return {}

    def layers(self):
        return self.told

    def layer_times(self, inputs, runs=20):
        return list(self.times)

    def close(self):
        pass


@pytest.fixture
def network(make_onnx):
    """Two convolutions with rectifiers, a sum and a linear layer."""
    nodes = [
        NODE("Conv", ["x", "stem.weight"], ["c1"], name="conv_1", pads=[1] * 4),
        NODE("Relu", ["c1"], ["r1"], name="relu_1"),
        NODE("Conv", ["r1", "body.weight"], ["c2"], name="conv_10", pads=[1] * 4),
        NODE("Add", ["c2", "r1"], ["a"], name="add"),
        NODE("Relu", ["a"], ["r2"], name="relu_2"),
        NODE("GlobalAveragePool", ["r2"], ["p"], name="pool"),
        NODE("Flatten", ["p"], ["f"], name="flatten"),
        NODE("Gemm", ["f", "head.weight"], ["y"], name="gemm"),
    ]
    rng = np.random.default_rng(0)
    shapes = {"stem": (16, 3, 3, 3), "body": (16, 16, 3, 3), "head": (16, 10)}
    held = {f"{k}.weight": rng.normal(size=v).astype(np.float32) for k, v in shapes.items()}
    return make_onnx(nodes, held, {"x": ["n", 3, 16, 16]})


def images(n=1):
    return {"x": np.random.default_rng(0).normal(size=(n, 3, 16, 16)).astype(np.float32)}


def told(*layers):
    return [LayerPrecision(name, op, "f32", (), tuple(origins)) for name, op, *origins in layers]


@pytest.mark.parametrize("runtime", ENGINES, ids=lambda r: type(r).__name__)
def test_every_engine_in_one_view(network, runtime):
    found = profile(network, runtime.build(network), images(2), PEAKS, runs=3)
    named = {node for layer in found.layers for node in layer.nodes}
    assert named >= {"conv_1", "relu_1", "conv_10", "add", "relu_2", "pool", "gemm"}
    assert sum(layer.macs for layer in found.layers) == 2 * (256 * 9 * 16 * (3 + 16) + 160)
    assert sum(layer.bound_ms for layer in found.layers) == pytest.approx(found.bound_ms)
    assert sum(layer.share for layer in found.layers) == pytest.approx(1)
    assert {layer.precision for layer in found.layers if layer.macs} == {"f32"}
    assert found.total_ms == pytest.approx(found.layers_ms + found.gap_ms)
    assert json.loads(json.dumps(found.to_json()))["layers"][0]["name"] == found.layers[0].name


def test_the_slowest_have_the_most_time_beyond_their_bound(network):
    layers = told(("conv_1", "Conv"), ("reorder", "Reorder"), ("conv_10", "Conv"))
    times = [LayerTime("conv_1", "Conv", 1.0), LayerTime("reorder", "Reorder", 2.0),
             LayerTime("conv_10", "Conv", 9.0)]  # fmt: skip
    found = profile(network, Told(layers, times), images(), PEAKS, runs=1)
    assert [layer.name for layer in found.slowest()] == ["conv_10", "reorder", "conv_1"]
    assert [layer.name for layer in found.slowest(1)] == ["conv_10"]
    assert found.to_json()["slowest"] == [2, 1, 0]
    assert found.layers[1].bound_ms == 0
    assert [layer.share for layer in found.layers] == pytest.approx([1 / 12, 2 / 12, 9 / 12])
    assert found.layers_ms == 12


def test_an_engine_that_tells_no_times(network):
    found = profile(network, Told(told(("stem", "Conv2d"), ("body", "Conv2d"))), images(), PEAKS)
    assert [layer.ms for layer in found.layers] == [None, None]
    assert [layer.nodes[0] for layer in found.layers] == ["conv_1", "conv_10"]
    assert found.slowest() == []
    assert found.layers[0].fraction is None
    json.dumps(found.to_json(), allow_nan=False)


def test_an_engine_that_tells_nothing(network):
    found = profile(network, Told([]), images(), PEAKS)
    assert found.layers == ()
    assert found.bound_ms > 0


@pytest.mark.parametrize(
    ("name", "node"),
    [("conv_1", "conv_1"), ("conv_10", "conv_10"), ("conv_1_nchwc", "conv_1"),
     ("r1_nchwc", "relu_1"), ("conv_10/WithoutBiases", "conv_10"), ("conv_100", None),
     ("stem", "conv_1"), ("head", "gemm"), ("unheard", None)],
)  # fmt: skip
def test_names(network, name, node):
    """What an engine appends to a name is no digit: that would be another node's."""
    (found,) = matched(told((name, "Softmax" if node == "relu_1" else "X")), traffic_of(network))
    heavy = node in ("conv_1", "conv_10", "gemm")
    assert found == ((node,) if node and not heavy else ())
    (found,) = matched(told((name, "Conv")), traffic_of(network))
    assert found == ((node,) if node in ("conv_1", "conv_10", "gemm") else found)


def test_a_reorder_called_after_its_product_is_not_the_product(network):
    layers = told(("x_reorder_conv_1", "Reorder"), ("conv_1", "Reorder"), ("conv_1", "Convolution"))
    assert matched(layers, traffic_of(network))[1:] == [(), ("conv_1",)]


def test_what_the_engine_names_itself_is_found_by_its_place(network):
    layers = told(("conv_1", "Conv"), ("Multiply_8042", "FullyConnected"), ("gemm", "Gemm"))
    assert matched(layers, traffic_of(network)) == [("conv_1",), ("conv_10",), ("gemm",)]


def test_branches_in_another_order_are_told_apart_by_shape(network):
    layers = [LayerPrecision("own_1", "FullyConnected", "f32", (-1, 10)),
              LayerPrecision("own_2", "Convolution", "f32", (-1, 16, 16, 16))]  # fmt: skip
    assert matched(layers, traffic_of(network)) == [("gemm",), ("conv_1",)]


def test_a_product_of_two_activations_takes_no_layer_of_a_weight(make_onnx):
    """Even where its scores are scaled by a constant, which is no weight."""
    nodes = [NODE("MatMul", ["x", "k"], ["s"], name="scores"), NODE("Mul", ["s", "c"], ["m"]),
             NODE("MatMul", ["m", "w"], ["y"], name="linear")]  # fmt: skip
    held = {"c": np.float32(0.5), "w": np.ones((4, 6), np.float32)}
    path = make_onnx(nodes, held, {"x": [1, 4, 4], "k": [1, 4, 4]})
    layers = told(("Multiply_8042", "FullyConnected"))
    assert matched(layers, traffic_of(path)) == [("linear",)]


def test_fused_origins_are_claimed(network):
    layers = told(("relu_2", "Subgraph", "add", "relu_2"), ("gemm", "Gemm"))
    first, _ = matched(layers, traffic_of(network))
    assert first == ("conv_10", "add", "relu_2")  # the step's product is inside as well


def test_numbered_names_meet_in_order():
    layers = told(("Multiply_7", "Eltwise"), ("a", "Conv"), ("Multiply_9", "Eltwise"))
    times = [LayerTime("Multiply_20", "Multiply", 1.0), LayerTime("a", "Conv", 2.0),
             LayerTime("gone", "Relu", 0.0), LayerTime("Multiply_31", "Multiply", 3.0),
             LayerTime("new", "Odd", 4.0)]  # fmt: skip
    assert [(layer.name, ms) for layer, ms in joined(layers, times)] == [
        ("Multiply_7", 1.0), ("a", 2.0), ("Multiply_9", 3.0), ("new", 4.0)]  # fmt: skip


def test_no_runs(network):
    with pytest.raises(InputError, match="at least 1"):
        profile(network, Told([]), images(), PEAKS, runs=0)
