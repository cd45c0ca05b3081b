import numpy as np
import pytest

from fettle.core.errors import ModelError
from fettle.core.machine import Machine
from fettle.core.shelf import PASSES

F = np.float32
SCALE = F(0.037)
X = (np.arange(-600, 600, dtype=F) * SCALE / 4).reshape(-1, 4)


def lowered(graph):
    return PASSES.make("graph.lower_openvino_rectified")(graph.ir)


def both(build):
    """The input is quantized as it is, and once more behind a ReLU."""
    return build(
        [("QuantizeLinear", ["x", "s", "z"], ["q"]), ("DequantizeLinear", ["q", "s", "z"], ["a"]),
         ("Relu", ["a"], ["r"]),
         ("QuantizeLinear", ["r", "t", "z"], ["p"]), ("DequantizeLinear", ["p", "t", "z"], ["y"])],
        {"s": SCALE * 2, "t": SCALE, "z": np.array(0, np.int8)},
    )  # fmt: skip


def zeros(model):
    pairs = [node for node in model.graph if "Linear" in node.op_type]
    return [node.inputs[2].const_value.numpy() for node in pairs]


def test_only_what_can_not_be_negative_turns_unsigned(build, run):
    found = zeros(lowered(both(build)))
    assert [zero.dtype.name for zero in found] == ["int8", "int8", "uint8", "uint8"]
    assert not any(zero.any() for zero in found)


def test_it_is_right_to_half_of_the_finer_step(build, run):
    inside = np.clip(np.rint(X.astype(float) / (SCALE * 2)), -128, 127) * (SCALE * 2)
    exact = np.clip(inside, 0, 127 * SCALE)
    error = np.abs(run(lowered(both(build)), {"x": X})["y"] - exact).max()
    assert error <= SCALE * 127 / 255 / 2 * 1.001


def test_a_float_model_is_refused(build):
    with pytest.raises(ModelError, match="has none"):
        lowered(build([("Relu", ["x"], ["y"])]))


@pytest.mark.parametrize(
    ("arch", "isa", "expected"),
    [("x86_64", ("avx512_vnni",), True), ("x86_64", ("avx2",), False), ("aarch64", (), False)],
)
def test_it_suits_x86_with_vnni(arch, isa, expected):
    cls = PASSES.load("graph.lower_openvino_rectified")
    assert cls.suits(Machine("cpu", arch, isa, 1)) is expected
