import numpy as np
import onnx
import onnx_ir as ir
import pytest

from fettle.core.errors import ModelError
from fettle.core.machine import Machine
from fettle.core.shelf import PASSES

F = np.float32
S = F(0.05)
X = np.random.default_rng(0).normal(0, 2, (2, 3, 9, 8)).astype(F)


def lowered(graph):
    result = PASSES.make("graph.lower_ort_x86_widths")(graph.ir)
    onnx.checker.check_model(ir.to_proto(result), full_check=True)
    return result


def quantized(source, name):
    return [("QuantizeLinear", [source, "s", "z"], [f"{name}_q"]),
            ("DequantizeLinear", [f"{name}_q", "s", "z"], [name])]  # fmt: skip


def conv(source, name, shape, held, group=1, pads=0):
    """A convolution with int8 weights by channel and a float bias."""
    rng = np.random.default_rng(len(held))
    held |= {
        f"{name}_w": rng.integers(-127, 128, shape).astype(np.int8),
        f"{name}_s": rng.uniform(0.001, 0.01, shape[0]).astype(F),
        f"{name}_z": np.zeros(shape[0], np.int8),
        f"{name}_b": rng.normal(0, 0.3, shape[0]).astype(F),
    }
    weight = [f"{name}_{part}" for part in "wsz"]
    attributes = {"group": group, "pads": [pads] * 4}
    return [("DequantizeLinear", weight, [f"{name}_d"], {"axis": 0}),
            ("Conv", [source, f"{name}_d", f"{name}_b"], [name], attributes)]  # fmt: skip


def block(build, channels=24, middle=(), ending="d", outputs=None):
    """Point-wise, depthwise, point-wise, as in an inverted bottleneck."""
    held = {"s": S, "z": np.array(0, np.int8)}
    nodes = [
        *quantized("x", "a"), *conv("a", "p", (channels, 3, 1, 1), held),
        ("Relu", ["p"], ["pr"]), *quantized("pr", "b"),
        *conv("b", "d", (channels, 1, 3, 3), held, group=channels, pads=1),
        *middle, *quantized(ending, "c"), *conv("c", "y", (5, channels, 1, 1), held),
    ]  # fmt: skip
    return build(nodes, held, inputs={"x": [2, 3, 9, 8]}, outputs=outputs)


def groups(model):
    convs = [node for node in model.graph if node.op_type == "Conv"]
    return [node.attributes["group"].as_int() for node in convs]


def squeeze_excite(held, channels=24):
    return [
        *quantized("d", "e"), ("GlobalAveragePool", ["e"], ["m"]), *quantized("m", "mq"),
        *conv("mq", "f", (channels, channels, 1, 1), held), ("HardSigmoid", ["f"], ["g"]),
        *quantized("g", "gq"), ("Mul", ["gq", "e"], ["k"]),
    ]  # fmt: skip


def test_a_depthwise_convolution_is_widened_exactly(build, run):
    graph = block(build)
    result = lowered(graph)
    assert groups(result) == [1, 32, 1]
    np.testing.assert_array_equal(run(result, {"x": X})["y"], run(graph.proto, {"x": X})["y"])


def test_squeeze_and_excite_widens_along(build, run):
    held = {"s": S, "z": np.array(0, np.int8)}
    nodes = [
        *quantized("x", "a"), *conv("a", "p", (24, 3, 1, 1), held), *quantized("p", "b"),
        *conv("b", "d", (24, 1, 3, 3), held, group=24, pads=1),
        *squeeze_excite(held), *quantized("k", "c"), *conv("c", "y", (5, 24, 1, 1), held),
    ]  # fmt: skip
    graph = build(nodes, held, inputs={"x": [2, 3, 9, 8]})
    result = lowered(graph)
    assert groups(result) == [1, 32, 1, 1]
    shapes = [n.inputs[1].producer().inputs[0].const_value.shape for n in result.graph
              if n.op_type == "Conv"]  # fmt: skip
    assert [tuple(s) for s in shapes][2] == (32, 32, 1, 1)  # a maker and a reader at once
    np.testing.assert_array_equal(run(result, {"x": X})["y"], run(graph.proto, {"x": X})["y"])


@pytest.mark.parametrize(
    "middle",
    [
        [("Softmax", ["d"], ["k"], {"axis": 1})],  # mixes channels
        [("Add", ["d", "x1"], ["k"])],  # of a tensor that no convolution makes
    ],
)
def test_what_mixes_channels_keeps_its_width(build, run, middle):
    held = {"s": S, "z": np.array(0, np.int8), "x1": np.ones((24, 1, 1), F)}
    nodes = [
        *quantized("x", "a"), *conv("a", "p", (24, 3, 1, 1), held), *quantized("p", "b"),
        *conv("b", "d", (24, 1, 3, 3), held, group=24, pads=1),
        *middle, *quantized("k", "c"), *conv("c", "y", (5, 24, 1, 1), held),
    ]  # fmt: skip
    graph = build(nodes, held, inputs={"x": [2, 3, 9, 8]})
    result = lowered(graph)
    assert groups(result) == [1, 24, 1]
    np.testing.assert_array_equal(run(result, {"x": X})["y"], run(graph.proto, {"x": X})["y"])


@pytest.mark.parametrize("channels", [16, 48])
def test_full_strides_are_left_alone(build, channels):
    assert groups(lowered(block(build, channels))) == [1, channels, 1]


def test_the_input_of_a_small_filter_gets_a_fourth_channel(build, run):
    held = {"s": S, "z": np.array(0, np.int8)}
    nodes = [*quantized("x", "a"), *conv("a", "y", (6, 3, 3, 3), held, pads=1)]
    graph = build(nodes, held, inputs={"x": [2, 3, 9, 8]})
    result = lowered(graph)
    made = next(node for node in result.graph if node.op_type == "Conv")
    assert tuple(made.inputs[1].producer().inputs[0].const_value.shape) == (6, 4, 3, 3)
    np.testing.assert_array_equal(run(result, {"x": X})["y"], run(graph.proto, {"x": X})["y"])


def test_a_model_without_convolutions_is_refused(build):
    with pytest.raises(ModelError, match="has none"):
        lowered(build([("Relu", ["x"], ["y"])]))


def test_it_suits_any_x86():
    cls = PASSES.load("graph.lower_ort_x86_widths")
    assert cls.suits(Machine("cpu", "x86_64", (), 1))
    assert not cls.suits(Machine("cpu", "aarch64", (), 1))


def test_nothing_is_left_that_nobody_reads(build):
    result = lowered(block(build))
    unread = [
        n for n in result.graph if not any(v.uses() or v.is_graph_output() for v in n.outputs)
    ]
    assert unread == []
