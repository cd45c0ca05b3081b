import numpy as np
import pytest

from fettle.core.errors import ModelError
from fettle.core.machine import Machine
from fettle.core.shelf import PASSES

F = np.float32
SCALE = F(0.037)
X = (np.arange(-600, 600, dtype=F) * SCALE / 4).reshape(-1, 4)


def lowered(graph):
    return PASSES.make("graph.lower_openvino_unsigned")(graph.ir)


def pair(build, before=(), source="x"):
    return build(
        [*before, ("QuantizeLinear", [source, "s", "z"], ["q"]),
         ("DequantizeLinear", ["q", "s", "z"], ["y"])],
        {"s": SCALE, "z": np.array(0, np.int8)},
    )  # fmt: skip


def zeros(model):
    return [
        int(node.inputs[2].const_value.numpy()) for node in model.graph if "Linear" in node.op_type
    ]


def test_a_signed_tensor_is_lowered_exactly(build, run):
    graph = pair(build)
    result = lowered(graph)
    assert zeros(result) == [128, 128]
    np.testing.assert_array_equal(run(result, {"x": X})["y"], run(graph.proto, {"x": X})["y"])


def test_a_non_negative_tensor_gets_the_whole_range(build, run):
    result = lowered(pair(build, [("Relu", ["x"], ["r"])], "r"))
    assert zeros(result) == [0, 0]
    error = np.abs(run(result, {"x": X})["y"] - np.clip(X, 0, 127 * SCALE)).max()
    assert error <= SCALE * 127 / 255 / 2 * 1.001


def test_a_float_model_is_refused(build):
    with pytest.raises(ModelError, match="has none"):
        lowered(build([("Relu", ["x"], ["y"])]))


@pytest.mark.parametrize(
    ("arch", "isa", "expected"),
    [("x86_64", ("avx512_vnni",), True), ("x86_64", ("avx2",), False), ("aarch64", (), False)],
)
def test_it_suits_x86_with_vnni(arch, isa, expected):
    cls = PASSES.load("graph.lower_openvino_unsigned")
    assert cls.suits(Machine("cpu", arch, isa, 1)) is expected
