import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from fettle.core.errors import ModelError
from fettle.core.machine import Machine
from fettle.core.shelf import PASSES

F = np.float32
X = np.random.default_rng(1).normal(0, 2, (2, 24, 7, 6)).astype(F)


def lowered(graph):
    result = PASSES.make("graph.lower_ort_x86_amx")(graph.ir)
    onnx.checker.check_model(ir.to_proto(result), full_check=True)
    return result


def conv(build, shape=(8, 24, 3, 3), group=1, least=-127):
    rng = np.random.default_rng(0)
    weight = rng.integers(-127, 128, shape).astype(np.int8)
    weight.flat[0] = least
    held = {"s": F(0.04), "z": np.array(128, np.uint8), "w": weight,
            "t": rng.uniform(0.001, 0.01, shape[0]).astype(F), "u": np.zeros(shape[0], np.int8),
            "o": rng.normal(0, 1, shape[0]).astype(F), "v": F(0.9)}  # fmt: skip
    return build(
        [("QuantizeLinear", ["x", "s", "z"], ["q"]), ("DequantizeLinear", ["q", "s", "z"], ["a"]),
         ("DequantizeLinear", ["w", "t", "u"], ["d"], {"axis": 0}),
         ("Conv", ["a", "d", "o"], ["c"], {"group": group}),
         ("QuantizeLinear", ["c", "v", "z"], ["p"]), ("DequantizeLinear", ["p", "v", "z"], ["y"])],
        held, inputs={"x": [2, 24, 7, 6]},
    )  # fmt: skip


def weight_zeros(model):
    layer = next(node for node in model.graph if node.op_type == "Conv")
    return layer.inputs[1].producer().inputs[2].const_value.numpy()


def optimized(model):
    """Return the outputs of onnxruntime's own integer kernels."""
    proto = model if isinstance(model, onnx.ModelProto) else ir.to_proto(model)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": X})[0]


def test_the_numbers_are_the_same(build, run):
    graph = conv(build)
    result = lowered(graph)
    np.testing.assert_array_equal(weight_zeros(result), np.full(8, -1))
    np.testing.assert_array_equal(run(result, {"x": X})["y"], run(graph.proto, {"x": X})["y"])
    np.testing.assert_array_equal(optimized(result), optimized(graph.proto))


@pytest.mark.parametrize(
    "changed",
    [
        {"shape": (8, 24, 1, 1)},
        {"shape": (24, 1, 3, 3), "group": 24},
        {"least": -128},
    ],
    ids=["of one tap", "depthwise", "no room below"],
)
def test_any_other_convolution_is_left_alone(build, changed):
    assert not weight_zeros(lowered(conv(build, **changed))).any()


def test_a_model_without_convolutions_is_refused(build):
    with pytest.raises(ModelError, match="has none"):
        lowered(build([("Relu", ["x"], ["y"])]))


@pytest.mark.parametrize(
    ("arch", "isa", "expected"),
    [("x86_64", ("amx_int8",), True), ("x86_64", ("avx512_vnni",), False), ("arm64", (), False)],
)
def test_it_suits_x86_with_amx(arch, isa, expected):
    cls = PASSES.load("graph.lower_ort_x86_amx")
    assert cls.suits(Machine("cpu", arch, isa, 1)) is expected
