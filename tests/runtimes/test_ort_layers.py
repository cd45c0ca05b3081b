"""What onnxruntime's layers run in, told against graphs whose kernels are known."""

import runpy
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from fettle.core.shelf import RUNTIMES
from fettle.testing import sample

MADE = runpy.run_path(str(Path(__file__).parent / "hand_made.py"))
node, write = MADE["node"], MADE["write"]
FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
MICROSOFT = ("com.microsoft", 1)
WEIGHT = np.linspace(-1, 1, 64, dtype="f4").reshape(16, 4)
ROWS = {"x": (FLOAT, ["n", 16]), "y": (FLOAT, ["n", 4])}


def session_of(path):
    return RUNTIMES.make("onnxruntime", threads=1).build(path)


def layers(path):
    return {layer.op: layer for layer in session_of(path).layers()}


def test_shapes_are_those_of_the_first_output(tmp_path):
    path = write(tmp_path / "m.onnx", [node("MatMul", "x w", "y", name="product")],
                 weights={"w": WEIGHT}, **ROWS)  # fmt: skip
    assert layers(path)["MatMul"].shape == (-1, 4)


def test_convolutions_in_the_engines_own_layout_have_shapes_too():
    found = [x for x in session_of(sample().onnx).layers() if "Conv" in x.op]
    inferred = onnx.shape_inference.infer_shapes(onnx.load(sample().onnx)).graph
    made = [n.output[0] for n in inferred.node if n.op_type == "Conv"]
    values = {v.name: v for v in (*inferred.value_info, *inferred.output)}
    expected = {tuple(d.dim_value or -1 for d in values[n].type.tensor_type.shape.dim)
                for n in made}  # fmt: skip
    assert {layer.shape for layer in found} == expected
    assert len(found) >= 7


@pytest.mark.parametrize(("level", "precision"), [(0, "f32"), (4, "int8")])
def test_four_bit_weights_compute_in_what_their_accuracy_level_says(tmp_path, level, precision):
    packed, scales = np.full((4, 1, 8), 0x9A, np.uint8), np.ones((4,), "f4")
    product = node(
        "MatMulNBits", "x w s", "y", name="q", domain=MICROSOFT[0],
        K=16, N=4, bits=4, block_size=16, accuracy_level=level,
    )  # fmt: skip
    path = write(tmp_path / "m.onnx", [product], domains=[MICROSOFT],
                 weights={"w": packed, "s": scales}, **ROWS)  # fmt: skip
    assert layers(path)["MatMulNBits"].precision == precision


def test_dynamically_quantized_products_are_integers(tmp_path):
    weight = np.arange(-32, 32, dtype=np.int8).reshape(16, 4)
    nodes = [
        node("DynamicQuantizeLinear", "x", "q s z", name="reading"),
        node("MatMulInteger", "q w z", "i", name="product"),
        node("Cast", "i", "f", name="back", to=FLOAT),
        node("Mul", "f s", "y", name="scaled"),
    ]
    path = write(tmp_path / "m.onnx", nodes, weights={"w": weight}, **ROWS)
    found = {layer.name: layer for layer in session_of(path).layers()}
    assert found["product"].precision == "int8"
    assert (found["reading"].precision, found["reading"].computes) == ("int8", False)
    assert (found["back"].precision, found["back"].computes) == ("f32", False)
    assert found["scaled"].precision == "f32"


def test_the_fused_dynamic_operator_is_an_integer_one(tmp_path):
    weight, scale = np.arange(-32, 32, dtype=np.int8).reshape(16, 4), np.float32(0.1)
    fused = node("DynamicQuantizeMatMul", "x w s", "y", name="d", domain=MICROSOFT[0])
    path = write(tmp_path / "m.onnx", [fused], domains=[MICROSOFT],
                 weights={"w": weight, "s": scale}, **ROWS)  # fmt: skip
    assert layers(path)["DynamicQuantizeMatMul"].precision == "int8"


def test_float16_is_computed_in_f32_between_conversions(tmp_path):
    """The processor's kernels are f32, and the engine converts around them."""
    path = write(tmp_path / "m.onnx", [node("Gemm", "x w", "y", name="product")],
                 weights={"w": WEIGHT.astype("f2")}, x=(HALF, ["n", 16]),
                 y=(HALF, ["n", 4]))  # fmt: skip
    session = session_of(path)
    found = {layer.name: layer for layer in session.layers()}
    times = {time.name for time in session.layer_times({"x": np.ones((2, 16), "f2")}, 1)}
    assert times <= set(found)
    casts = [layer for layer in found.values() if layer.op == "Cast"]
    assert found["product"].precision == ("f32" if casts else "f16")
    assert {cast.precision for cast in casts} <= {"f32", "f16"}


def test_quantized_operators_and_what_stays_in_float():
    found = RUNTIMES.make("onnxruntime", threads=1).build(sample().master, ["graph.lower_ort_x86"])
    by_op = {layer.op: layer.precision for layer in found.layers()}
    assert by_op["QLinearConv"] == by_op["QuantizeLinear"] == "int8"
    assert by_op.get("DequantizeLinear", "f32") == "f32"


def test_indexes_and_truths(tmp_path):
    nodes = [
        node("Shape", "x", "s", name="shape"),
        node("ReduceProd", "s", "p", name="size", keepdims=0),
        node("Cast", "p", "f", name="cast", to=FLOAT),
        node("Greater", "x f", "b", name="larger"),
        node("Where", "b x f", "y", name="chosen"),
    ]
    path = write(tmp_path / "m.onnx", nodes, x=(FLOAT, ["n", 4]), y=(FLOAT, ["n", 4]))
    found = {layer.name: layer.precision for layer in session_of(path).layers()}
    expected = {"shape": "i64", "size": "i64", "cast": "f32", "larger": "f32", "chosen": "f32"}
    assert found == {name: expected[name] for name in found}
    assert {"larger", "chosen"} <= set(found)


@pytest.mark.parametrize("names", [False, True])
def test_a_layer_bears_one_name_whatever_the_file_calls_it(tmp_path, names):
    graph = onnx.load(sample().onnx)
    for index, each in enumerate(graph.graph.node):
        each.name = f"n{index}" if names else ""
    onnx.save(graph, tmp_path / "m.onnx")
    session = session_of(tmp_path / "m.onnx")
    found = [layer.name for layer in session.layers()]
    assert len(set(found)) == len(found)
    assert {time.name for time in session.layer_times(sample().inputs(2), 1)} <= set(found)


def test_layers_inside_branches_are_told(tmp_path):
    made = helper.make_tensor_value_info("y", FLOAT, ["n", 4])
    weight = onnx.numpy_helper.from_array(WEIGHT, "w")
    branches = [
        helper.make_graph(
            [helper.make_node(op, ["x", "w"], ["h"], name=f"{op}1"),
             helper.make_node("Relu", ["h"], ["y"], name=f"{op}2")],
            op, [], [made], [weight],
        )
        for op in ("MatMul", "Gemm")
    ]  # fmt: skip
    nodes = [
        node("ReduceMax", "x", "m", keepdims=0),
        node("Cast", "m", "c", to=TensorProto.BOOL),
        node("If", "c", "y", name="if", then_branch=branches[0], else_branch=branches[1]),
    ]
    session = session_of(write(tmp_path / "m.onnx", nodes, **ROWS))
    names = {layer.name for layer in session.layers()}
    assert "MatMul1" in names
    times = session.layer_times({"x": np.ones((2, 16), "f4")}, 1)
    assert {time.name for time in times} <= names
