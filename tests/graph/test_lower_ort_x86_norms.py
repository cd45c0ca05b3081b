import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from fettle.core.machine import Machine
from fettle.core.shelf import PASSES

F = np.float32
RNG = np.random.default_rng(0)
X = RNG.normal(0, 1, (2, 6, 16)).astype(F)


def lowered(graph):
    result = PASSES.make("graph.lower_ort_x86_norms")(graph.ir)
    onnx.checker.check_model(ir.to_proto(result), full_check=True)
    return result


def encoder(build, residual="x", normed=True):
    """x + linear(x), then a layer norm."""
    held = {
        "s": F(0.03),
        "z": np.array(0, np.int8),
        "w": RNG.normal(0, 0.3, (16, 16)).astype(F),
        "g": RNG.uniform(0.5, 2, 16).astype(F),
        "o": RNG.normal(0, 1, 16).astype(F),
    }
    last = ("LayerNormalization", ["r", "g", "o"], ["y"]) if normed else ("Relu", ["r"], ["y"])
    return build(
        [("QuantizeLinear", ["x", "s", "z"], ["q"]), ("DequantizeLinear", ["q", "s", "z"], ["a"]),
         ("MatMul", ["a", "w"], ["m"]), ("Add", ["m", residual], ["r"]), last],
        held, inputs={"x": [2, 6, 16]},
    )  # fmt: skip


def operators(model, folder):
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "o.onnx")
    proto = model if isinstance(model, onnx.ModelProto) else ir.to_proto(model)
    ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return {node.op_type for node in onnx.load(folder / "o.onnx").graph.node}


@pytest.mark.parametrize("residual", ["x", "a"])
def test_the_sum_is_the_same_and_is_not_fused(build, run, tmp_path, residual):
    graph = encoder(build, residual)
    assert "SkipLayerNormalization" in operators(graph.proto, tmp_path)
    result = lowered(graph)
    assert "SkipLayerNormalization" not in operators(result, tmp_path)
    np.testing.assert_array_equal(run(result, {"x": X})["y"], run(graph.proto, {"x": X})["y"])


def test_an_addition_before_anything_else_is_kept(build):
    kinds = [node.op_type for node in lowered(encoder(build, normed=False)).graph]
    assert "Sum" not in kinds
    assert "Add" in kinds


def test_a_dynamic_model_is_lowered_too(build, run, tmp_path):
    weights = {"w": RNG.normal(0, 0.3, (32, 32)).astype(F), "g": np.ones(32, F)}
    graph = build(
        [("MatMul", ["x", "w"], ["m"]), ("Add", ["m", "x"], ["r"]),
         ("LayerNormalization", ["r", "g", "g"], ["y"])],
        weights, inputs={"x": [2, 6, 32]},
    )  # fmt: skip
    x = RNG.normal(0, 1, (2, 6, 32)).astype(F)
    model = PASSES.make("graph.dynamic_int8")(graph.ir)
    before = run(model, {"x": x})["y"]
    assert "SkipLayerNormalization" in operators(model, tmp_path)
    result = PASSES.make("graph.lower_ort_x86_norms")(model)
    assert "SkipLayerNormalization" not in operators(result, tmp_path)
    np.testing.assert_array_equal(run(result, {"x": x})["y"], before)


def test_it_suits_any_x86():
    cls = PASSES.load("graph.lower_ort_x86_norms")
    assert cls.suits(Machine("cpu", "x86_64", (), 1))
    assert not cls.suits(Machine("cpu", "aarch64", (), 1))
