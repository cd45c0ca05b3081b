"""Models that the engines really refuse: each error names the operator, its node and the reason."""

import runpy
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from fettle.core.errors import ModelError
from fettle.core.shelf import RUNTIMES
from fettle.runtimes._refusal import refusal

MADE = runpy.run_path(str(Path(__file__).parent / "hand_made.py"))
node, write, FLOAT = MADE["node"], MADE["write"], TensorProto.FLOAT
ROW = {"x": (FLOAT, [1, 4]), "y": (FLOAT, [1, 4])}
CUSTOM, ML = ("com.example", 1), ("ai.onnx.ml", 3)


def refused(engine, path):
    runtime = RUNTIMES.make(engine, threads=1)
    if runtime.supports() is not None:
        pytest.skip(runtime.supports())
    with pytest.raises(ModelError) as caught:
        runtime.build(path)
    said = str(caught.value)
    assert "\n" not in said
    assert len(said) < 600
    return said


def sharpen(name):
    return node("Sharpen", "h", "y", name=name, domain=CUSTOM[0])


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(("name", "shown"), [("sharpen_1", "sharpen_1"), ("", "y")])
def test_an_operator_of_another_domain(tmp_path, engine, name, shown):
    nodes = [node("Relu", "x", "h"), sharpen(name)]
    said = refused(engine, write(tmp_path / "m.onnx", nodes, domains=[CUSTOM], **ROW))
    assert f"operator `com.example.Sharpen` (node `{shown}`)" in said


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_one_inside_a_branch(tmp_path, engine):
    made = helper.make_tensor_value_info("y", FLOAT, [1, 4])
    bad = helper.make_node("Sharpen", ["x"], ["y"], name="deep", domain=CUSTOM[0])
    good = helper.make_node("Relu", ["x"], ["y"], name="flat")
    branches = [helper.make_graph([n], n.name, [], [made]) for n in (bad, good)]
    nodes = [
        node("ReduceMax", "x", "m", keepdims=0),
        node("Cast", "m", "c", to=TensorProto.BOOL),
        node("If", "c", "y", name="if", then_branch=branches[0], else_branch=branches[1]),
    ]
    said = refused(engine, write(tmp_path / "m.onnx", nodes, domains=[CUSTOM], **ROW))
    assert "operator `com.example.Sharpen` (node `deep`)" in said


def test_classical_machine_learning_runs_on_one_engine_only(tmp_path):
    scaler = node("Scaler", "x", "y", name="scale", domain=ML[0], scale=[2.0] * 4, offset=[1.0] * 4)
    path = write(tmp_path / "m.onnx", [scaler], domains=[ML], **ROW)
    found = RUNTIMES.make("onnxruntime", threads=1).build(path).run({"x": np.ones((1, 4), "f4")})
    np.testing.assert_array_equal(found["y"], np.zeros((1, 4)))
    said = refused("openvino", path)
    assert "operator `ai.onnx.ml.Scaler` (node `scale`)" in said
    assert "No conversion rule found" in said


def test_several_operators_at_once(tmp_path):
    nodes = [node("Det", "x", "d", name="volume"), node("Blur", "d", "y", name="b", domain="com.a")]
    shapes = {"x": (FLOAT, [1, 2, 2]), "y": (FLOAT, [1])}
    said = refused("openvino", write(tmp_path / "m.onnx", nodes, domains=[("com.a", 1)], **shapes))
    assert "`com.a.Blur` (node `b`)" in said
    assert "`Det` (node `volume`)" in said


def test_onnxruntimes_own_quantization_is_refused_with_the_way_out(tmp_path):
    nodes = [
        node("QuantizeLinear", "x s z", "q"),
        node("QGemm", "q s z w s z", "y", name="fc", domain="com.microsoft"),
    ]
    weights = {"s": np.float32(0.1), "z": np.uint8(0), "w": np.ones((4, 4), np.uint8)}
    own = [("com.microsoft", 1)]
    path = write(tmp_path / "m.onnx", nodes, weights=weights, domains=own, **ROW)
    RUNTIMES.make("onnxruntime", threads=1).build(path).close()
    said = refused("openvino", path)
    assert "operator `com.microsoft.QGemm` (node `fc`)" in said
    assert "give the float model to `graph.static_int8`" in said
    assert "QuantFormat.QDQ" in said


def test_a_type_that_an_engine_has_no_kernel_for(tmp_path):
    shape, double = [1, 1, 4, 4], TensorProto.DOUBLE
    path = write(
        tmp_path / "m.onnx", [node("Conv", "x w", "y", name="first")],
        weights={"w": np.ones((1, 1, 1, 1))}, x=(double, shape), y=(double, shape),
    )  # fmt: skip
    said = refused("onnxruntime", path)
    assert "operator `Conv` (node `first`): Could not find an implementation for Conv" in said


def test_an_operator_set_that_is_too_new(tmp_path):
    path = write(tmp_path / "m.onnx", [node("Relu", "x", "y")], opset=99, **ROW)
    assert "Opset 99 is under development" in refused("onnxruntime", path)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_shapes_that_do_not_fit(tmp_path, engine):
    nodes = [node("MatMul", "x w", "y", name="product")]
    path = write(tmp_path / "m.onnx", nodes, weights={"w": np.ones((5, 4), "f4")}, **ROW)
    said = refused(engine, path)
    assert "operator `MatMul` (node `product`)" in said
    assert "ncompatible" in said


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_inputs_that_an_operator_can_not_take(tmp_path, engine, threads):
    """What only shows at run time is said the same way, on one thread too.

    There OpenVINO 2026.4 hides the fault and returns what it had computed before.
    """
    nodes = [node("Reshape", "x s", "y", name="view")]
    free = {"x": (FLOAT, ["n", 4]), "y": (FLOAT, ["a", "b"])}
    path = write(tmp_path / "m.onnx", nodes, weights={"s": np.array([3, 4])}, **free)
    session = RUNTIMES.make(engine, threads=threads).build(path)
    assert session.run({"x": np.ones((3, 4), "f4")})["y"].shape == (3, 4)
    with pytest.raises(ModelError, match=r"operator `Reshape` \(node `view`\)"):
        session.run({"x": np.ones((1, 4), "f4")})
    assert session.run({"x": np.ones((3, 4), "f4")})["y"].shape == (3, 4)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_values_that_no_numpy_array_holds(tmp_path, engine):
    half = TensorProto.BFLOAT16
    nodes = [node("Cast", "x", "h", to=FLOAT), node("Relu", "h", "y")]
    path = write(tmp_path / "m.onnx", nodes, x=(half, [1, 4]), y=(FLOAT, [1, 4]))
    assert "`x`" in refused(engine, path)


def test_a_message_that_names_nothing_is_kept_whole(tmp_path):
    said = str(refusal("an engine", RuntimeError("out of luck"), tmp_path / "none.onnx"))
    assert said == "an engine refuses the model: out of luck"
    unread = RuntimeError("com.x:Op(-1) is not a registered function/op")
    said = str(refusal("an engine", unread, tmp_path / "none.onnx"))
    assert said.startswith("an engine refuses the model: operator `com.x.Op`: ")
    assert str(refusal("an engine", RuntimeError(""), b"")).endswith("RuntimeError")
    onnx.save(helper.make_model(helper.make_graph([], "g", [], [])), tmp_path / "empty.onnx")
    assert "`com.x.Op`: " in str(refusal("an engine", unread, tmp_path / "empty.onnx"))
