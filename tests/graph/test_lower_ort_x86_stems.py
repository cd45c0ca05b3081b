import numpy as np
import onnx
import onnx_ir as ir
import pytest

from fettle.core.errors import ModelError
from fettle.core.machine import Machine
from fettle.core.shelf import PASSES

F = np.float32
RNG = np.random.default_rng(0)
X = RNG.normal(0, 2, (2, 3, 12, 10)).astype(F)


def lowered(graph):
    result = PASSES.make("graph.lower_ort_x86_stems")(graph.ir)
    onnx.checker.check_model(ir.to_proto(result), full_check=True)
    return result


def stem(build, kernel=(3, 3), channels=3, size=(12, 10), zero=128, **attributes):
    attributes = {"strides": [2, 2], "pads": [1, 1, 1, 1]} | attributes
    kind = np.uint8 if zero else np.int8
    width = channels // attributes.get("group", 1)
    held = {"s": F(0.04), "z": np.array(zero, kind), "t": RNG.uniform(0.001, 0.01, 6).astype(F),
            "w": RNG.integers(-127, 128, (6, width, *kernel)).astype(np.int8),
            "u": np.zeros(6, np.int8), "o": RNG.normal(0, 1, 6).astype(F)}  # fmt: skip
    return build(
        [("QuantizeLinear", ["x", "s", "z"], ["q"]), ("DequantizeLinear", ["q", "s", "z"], ["a"]),
         ("DequantizeLinear", ["w", "t", "u"], ["d"], {"axis": 0}),
         ("Conv", ["a", "d", "o"], ["y"], attributes)],
        held, inputs={"x": ["n", channels, *size]},
    )  # fmt: skip


def folded(model):
    return any(node.op_type == "SpaceToDepth" for node in model.graph)


@pytest.mark.parametrize("zero", [0, 128])
@pytest.mark.parametrize(
    ("kernel", "pads"),
    [
        ((7, 7), [3, 3, 3, 3]),
        ((3, 3), [1, 1, 1, 1]),
        ((3, 3), [0, 0, 1, 1]),
        ((5, 3), [2, 1, 2, 0]),
        ((4, 4), [1, 1, 1, 1]),
        ((2, 2), [0, 0, 0, 0]),
    ],
)
def test_the_outputs_are_the_same(build, run, kernel, pads, zero):
    graph = stem(build, kernel, pads=pads, zero=zero)
    result = lowered(graph)
    assert folded(result)
    found, expected = (run(model, {"x": X})["y"] for model in (result, graph.proto))
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "changed",
    [
        {"strides": [1, 1]},
        {"dilations": [2, 2]},
        {"auto_pad": "SAME_UPPER", "pads": [0, 0, 0, 0]},
        {"group": 3},
        {"channels": 8},
        {"size": (11, 10)},
        {"size": ("h", "w")},
    ],
    ids=str,
)
def test_any_other_convolution_is_left_alone(build, changed):
    if "auto_pad" in changed:  # the checker refuses both
        graph = stem(build, auto_pad="SAME_UPPER", pads=[0, 0, 0, 0])
    else:
        graph = stem(build, **changed)
    assert not folded(lowered(graph))


def test_a_model_without_convolutions_is_refused(build):
    with pytest.raises(ModelError, match="has none"):
        lowered(build([("Relu", ["x"], ["y"])]))


def test_it_suits_any_x86():
    cls = PASSES.load("graph.lower_ort_x86_stems")
    assert cls.suits(Machine("cpu", "x86_64", (), 1))
    assert not cls.suits(Machine("cpu", "aarch64", (), 1))
