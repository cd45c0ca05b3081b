import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fettle.core.recipe import Recipe
from fettle.core.shelf import RUNTIMES
from fettle.search._trial import Trial, is_quantized, name_of, precision_of

F32, BF16 = (RUNTIMES.make("openvino", precision=p) for p in ("f32", "bf16"))


def saved(tmp_path, *tensors, op="Identity", inside=False):
    """Save a model with such constants, in its graph or in a branch of it."""
    held = [helper.make_tensor(f"t{i}", kind, [n], [0] * n) for i, (kind, n) in enumerate(tensors)]
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    nodes = [helper.make_node(op, ["x"], ["y"])]
    if inside:
        body = helper.make_graph(nodes, "b", [], [value], held)
        nodes, held = [helper.make_node("If", ["c"], ["z"], then_branch=body, else_branch=body)], []
    graph = helper.make_graph(nodes, "g", [], [value], held)
    onnx.save(helper.make_model(graph), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


CASES = {
    "f32": ([(TensorProto.FLOAT, 999)], {}, "f32"),
    "operator": ([(TensorProto.FLOAT, 999)], {"op": "QuantizeLinear"}, "int8"),
    "contributed operator": ([], {"op": "DynamicQuantizeMatMul"}, "int8"),
    "int8 weights": ([(TensorProto.FLOAT, 999), (TensorProto.INT8, 999)], {}, "int8"),
    "int8 in a branch": ([(TensorProto.INT8, 999)], {"inside": True}, "int8"),
    "operator in a branch": ([], {"op": "MatMulInteger", "inside": True}, "int8"),
    "int4 among int8": ([(TensorProto.INT8, 999), (TensorProto.INT4, 998)], {}, "int4"),
    "a few integers": ([(TensorProto.FLOAT, 999), (TensorProto.UINT8, 9)], {}, "f32"),
    "half": ([(TensorProto.FLOAT, 99), (TensorProto.FLOAT16, 999)], {}, "f16"),
    "some half": ([(TensorProto.FLOAT, 999), (TensorProto.FLOAT16, 99)], {}, "f32"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_precision_is_that_of_weights_and_operators(tmp_path, case):
    tensors, more, expected = CASES[case]
    path = saved(tmp_path, *tensors, **more)
    assert precision_of(path, F32) == expected
    assert is_quantized(path) == expected.startswith("int")


@pytest.mark.parametrize(("case", "expected"), [("f32", "bf16"), ("half", "bf16"),
                                                ("int8 weights", "int8")])  # fmt: skip
def test_what_isnt_in_integers_is_in_what_the_engine_computes_in(tmp_path, case, expected):
    tensors, more, _ = CASES[case]
    assert precision_of(saved(tmp_path, *tensors, **more), BF16) == expected


def test_weights_in_constant_nodes_count(tmp_path):
    tensor = numpy_helper.from_array(np.zeros(99, np.int8), "c")
    node = helper.make_node("Constant", [], ["y"], value=tensor)
    value = helper.make_tensor_value_info("y", TensorProto.INT8, [99])
    onnx.save(helper.make_model(helper.make_graph([node], "g", [], [value])), tmp_path / "c.onnx")
    assert precision_of(tmp_path / "c.onnx", F32) == "int8"


@pytest.mark.parametrize(
    ("recipe", "precision", "expected"),
    [
        ("graph.dynamic_int8", "int8", "INT8 dynamic"),
        ("graph.weight_only", "int8", "INT8 weights"),
        ("graph.weight_only(bits=4)", "int4", "INT4 weights"),
        ("graph.float16", "f16", "FP16 weights"),
        ("prune.channels > graph.dynamic_int8", "int8", "Pruned + INT8 dynamic"),
        ("", "f32", "FP32"),
        ("", "bf16", "BF16"),
        ("", "f16", "FP16"),
    ],
)
def test_names_say_the_kind_and_the_precision(recipe, precision, expected):
    parsed = Recipe.parse(recipe) if recipe else Recipe()
    assert name_of(parsed, precision) == expected


@pytest.mark.parametrize(
    ("precision", "fp32", "lowered"),
    [("f32", True, False), ("f16", True, False), ("bf16", False, False), ("int8", False, True),
     ("int4", False, True)],
)  # fmt: skip
def test_denominators_and_what_is_lowered(tmp_path, precision, fp32, lowered):
    trial = Trial("x", Recipe(), F32, "key", tmp_path / "m.onnx", precision)
    assert trial.is_fp32 is fp32
    assert trial.is_lowered is lowered
