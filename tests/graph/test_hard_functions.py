import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_ir.passes import common

from fettle.graph._hard_functions import recognise_hard_functions

F = np.float32
X = np.linspace(-8, 8, 400, dtype=F).reshape(-1, 4)
HELD = {"three": F(3), "six": F(6), "sixth": F(1 / 6), "zero": F(0), "two": F(2), "five": F(5)}
CLIP = [("Add", ["x", "three"], ["a"]), ("Clip", ["a", "zero", "six"], ["c"])]
TURNED = [("Add", ["three", "x"], ["a"]), ("Clip", ["a", "zero", "six"], ["c"])]


def hard(x):
    return np.clip(x / 6 + 0.5, 0, 1)


def found(graph, opset=20):
    model = graph.ir
    recognise_hard_functions(model.graph, opset)
    common.RemoveUnusedNodesPass()(model)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    return model


def kinds(model):
    return [node.op_type for node in model.graph]


@pytest.mark.parametrize(
    "nodes",
    [
        [*CLIP, ("Mul", ["x", "c"], ["m"]), ("Div", ["m", "six"], ["y"])],
        [*CLIP, ("Mul", ["c", "x"], ["m"]), ("Mul", ["m", "sixth"], ["y"])],
        [*TURNED, ("Div", ["c", "six"], ["d"]), ("Mul", ["x", "d"], ["y"])],
        [*CLIP, ("Mul", ["sixth", "c"], ["d"]), ("Mul", ["d", "x"], ["y"])],
        [("HardSigmoid", ["x"], ["d"], {"alpha": 1 / 6, "beta": 0.5}), ("Mul", ["x", "d"], ["y"])],
    ],
)
def test_a_hard_swish_is_recognised(build, run, nodes):
    model = found(build(nodes, HELD))
    assert kinds(model) == ["HardSwish"]
    exact = X.astype(float) * hard(X.astype(float))
    np.testing.assert_allclose(run(model, {"x": X})["y"], exact, atol=2e-6)


@pytest.mark.parametrize("last", [("Div", ["c", "six"], ["y"]), ("Mul", ["c", "sixth"], ["y"])])
def test_a_hard_sigmoid_is_recognised(build, run, last):
    model = found(build([*CLIP, last], HELD))
    assert kinds(model) == ["HardSigmoid"]
    np.testing.assert_allclose(run(model, {"x": X})["y"], hard(X.astype(float)), atol=1e-6)


def test_other_numbers_make_a_gate_but_no_hard_swish(build, run):
    clip = [("Add", ["x", "two"], ["a"]), ("Clip", ["a", "zero", "five"], ["c"])]
    graph = build([*clip, ("Div", ["c", "five"], ["d"]), ("Mul", ["x", "d"], ["y"])], HELD)
    model = found(graph)
    assert kinds(model) == ["HardSigmoid", "Mul"]
    np.testing.assert_allclose(
        run(model, {"x": X})["y"], X * np.clip((X.astype(float) + 2) / 5, 0, 1), atol=2e-6
    )


@pytest.mark.parametrize(
    "nodes",
    [
        [*CLIP, ("Div", ["c", "five"], ["y"])],
        [*CLIP, ("Div", ["six", "c"], ["y"])],
        [*CLIP, ("Div", ["c", "six"], ["d"]), ("Add", ["c", "d"], ["y"])],
        [("Clip", ["x", "zero", "six"], ["c"]), ("Div", ["c", "six"], ["y"])],
    ],
    ids=["another number", "the other way round", "read elsewhere", "not moved"],
)
def test_anything_else_is_left_alone(build, nodes):
    assert kinds(found(build(nodes, HELD))) == [node[0] for node in nodes]


def test_old_operator_sets_have_no_hard_swish(build):
    graph = build([*CLIP, ("Div", ["c", "six"], ["d"]), ("Mul", ["x", "d"], ["y"])], HELD)
    assert kinds(found(graph, opset=13)) == ["HardSigmoid", "Mul"]
