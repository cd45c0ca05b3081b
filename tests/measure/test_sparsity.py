import numpy as np
import pytest
from onnx import helper, numpy_helper

from fettle.core.shelf import METRICS
from fettle.measure import Artifact, operators_of, sparsity_of, tensor_sparsity

NODE = helper.make_node


def test_zeros_are_counted_by_tensor_and_in_all(make_onnx):
    w = np.array([[0, 1, 2], [0, 0, 3]], dtype=np.float32)
    v = np.array([[1], [0], [2]], dtype=np.float32)
    nodes = [NODE("MatMul", ["x", "w"], ["h"]), NODE("MatMul", ["h", "v"], ["g"]),
             NODE("Add", ["g", "bias"], ["y"])]  # fmt: skip
    held = {"w": w, "v": v, "bias": np.zeros(1, np.float32)}
    path = make_onnx(nodes, held, {"x": ["n", 2]}, external=True)
    found = {tensor.name: (tensor.zeros, tensor.share) for tensor in tensor_sparsity(path)}
    assert found == {"w": (3, 0.5), "v": (1, pytest.approx(1 / 3))}
    assert sparsity_of(path) == pytest.approx(4 / 9)
    measured = METRICS.make("sparsity").measure(Artifact(path))
    assert (measured.value, measured.better) == (sparsity_of(path), "neither")


def test_a_quantized_zero_is_the_zero_point(make_onnx):
    w = np.array([[5, 0], [5, 7], [9, 7]], dtype=np.uint8)
    nodes = [NODE("DequantizeLinear", ["w", "s", "z"], ["f"]), NODE("MatMul", ["x", "f"], ["y"])]
    held = {"w": w, "s": np.float32(0.1), "z": np.uint8(5)}
    assert sparsity_of(make_onnx(nodes, held, {"x": ["n", 3]})) == pytest.approx(2 / 6)


@pytest.mark.parametrize(("axis", "points", "zeros"), [(0, [5, 5, 7], 3), (1, [5, 7], 4)])
def test_each_channel_has_its_own_zero_point(make_onnx, axis, points, zeros):
    w = np.array([[5, 0], [5, 7], [9, 7]], dtype=np.uint8)
    scale, point = np.ones(len(points), np.float32), np.array(points, dtype=np.uint8)
    nodes = [NODE("DequantizeLinear", ["w", "s", "z"], ["f"], axis=axis),
             NODE("MatMul", ["x", "f"], ["y"])]  # fmt: skip
    path = make_onnx(nodes, {"w": w, "s": scale, "z": point}, {"x": ["n", 3]})
    assert tensor_sparsity(path)[0].zeros == zeros == int(
        (w == np.expand_dims(point, 1 - axis)).sum()
    )  # fmt: skip


def test_weights_held_by_constant_nodes_count(make_onnx):
    constant = numpy_helper.from_array(np.eye(3, dtype=np.float32))
    nodes = [NODE("Constant", [], ["w"], value=constant), NODE("MatMul", ["x", "w"], ["y"])]
    assert sparsity_of(make_onnx(nodes, {}, {"x": ["n", 3]})) == pytest.approx(6 / 9)


def test_no_weights_no_sparsity(make_onnx):
    assert sparsity_of(make_onnx([NODE("Relu", ["x"], ["y"])], {}, {"x": ["n", 3]})) == 0


def test_operators_are_counted_with_their_domain(make_onnx):
    nodes = [NODE("Relu", ["x"], ["a"]), NODE("Relu", ["a"], ["b"]),
             NODE("Gelu", ["b"], ["y"], domain="com.microsoft")]  # fmt: skip
    path = make_onnx(nodes, {}, {"x": ["n", 3]}, domains=("", "com.microsoft"))
    assert list(operators_of(path).items()) == [("Relu", 2), ("com.microsoft.Gelu", 1)]


def test_operators_inside_branches_count(make_onnx):
    def branch(name):
        value = helper.make_tensor_value_info(name, 1, None)
        return helper.make_graph([NODE("Neg", ["x"], [name])], name, [], [value])

    held = {"flag": np.array(True)}
    node = NODE("If", ["flag"], ["y"], then_branch=branch("t"), else_branch=branch("e"))
    assert operators_of(make_onnx([node], held, {"x": ["n", 3]})) == {"Neg": 2, "If": 1}
