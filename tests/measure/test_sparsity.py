import doctest
import importlib

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn
from torch.nn.utils import parametrize, prune

import fettle
from fettle.core.bundle import Bundle, Manifest
from fettle.core.errors import ModelError
from fettle.core.shelf import METRICS, TECHNIQUES
from fettle.measure import Artifact, operators_of, sparsity_of, tensor_sparsity
from fettle.testing import sample

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


def layers():
    model = nn.ModuleDict({"a": nn.Linear(4, 2), "norm": nn.BatchNorm1d(4), "b": nn.Linear(2, 4)})
    model["b"].weight.data.zero_()
    model["a"].weight.data[0, :3] = 0
    model["a"].bias.data.zero_()
    return model


def test_a_torch_module_is_counted_by_layer():
    found = fettle.sparsity(layers())
    assert {n: (t.zeros, t.size, t.shape) for n, t in found.layers.items()} == {
        "a.weight": (3, 8, (2, 4)),
        "b.weight": (8, 8, (4, 2)),
    }
    assert (found.zeros, found.size, found.total) == (11, 16, 11 / 16)
    assert str(found).splitlines() == [
        "a.weight   37.50%            3 of           8",
        "b.weight  100.00%            8 of           8",
        "total      68.75%           11 of          16",
    ]


def test_shared_weights_and_other_types_count_too():
    model = layers().bfloat16()
    model["twin"] = model["a"]
    assert fettle.sparsity(model).total == 11 / 16
    assert fettle.sparsity(nn.ReLU()).total == 0
    assert str(fettle.sparsity(nn.ReLU())).split() == ["total", "0.00%", "0", "of", "0"]


def test_every_form_of_a_model_has_the_same_zeros():
    path = sample().onnx
    pruned = TECHNIQUES.make("prune.magnitude", sparsity=0.5, epochs=0)(
        sample().module, sample().task
    )
    exported = sample().exported(pruned, "half")
    bundle = Bundle(exported.parent, Manifest((), (), ""))
    forms = [exported, str(exported), onnx.load(exported), ir.load(exported), pruned, bundle]
    assert [fettle.sparsity(form).zeros for form in forms] == [74512 // 2] * 6
    assert fettle.sparsity(path).zeros < 10


def test_a_converted_graph_is_its_integers():
    quantize = TECHNIQUES.make("quantize.static", calibrator="minmax")
    found = fettle.sparsity(quantize(sample().module, sample().task))
    assert found.size == fettle.sparsity(sample().module).size
    assert found.zeros == fettle.sparsity(sample().master).zeros > 0


def test_other_things_are_refused(tmp_path, make_onnx):
    with pytest.raises(ModelError, match="got list"):
        fettle.sparsity([torch.zeros(3)])
    with pytest.raises(ModelError, match="found none"):
        fettle.sparsity(tmp_path)
    held = {"w": np.zeros((64, 64), np.float32)}
    path = make_onnx([NODE("MatMul", ["x", "w"], ["y"])], held, {"x": ["n", 64]}, external=True)
    with pytest.raises(ModelError, match="another file"):
        fettle.sparsity(onnx.load(path, load_external_data=False))


def test_the_example_runs():
    module = importlib.import_module("fettle.measure.sparsity")
    assert doctest.testmod(module).attempted
    assert not doctest.testmod(module).failed


def test_masks_of_torch_are_counted_as_the_forward_pass_uses_them():
    torch.manual_seed(0)
    shared = nn.Linear(8, 8)
    model = nn.Sequential(shared, nn.ReLU(), shared, nn.Linear(8, 4), nn.Linear(4, 6))
    prune.l1_unstructured(shared, "weight", 0.5)
    parametrize.register_parametrization(model[3], "weight", nn.ReLU())
    negative = int((model[3].parametrizations.weight.original < 0).sum())
    found = fettle.sparsity(model).layers
    assert {name: (t.zeros, t.size) for name, t in found.items()} == {
        "0.weight": (32, 64), "3.weight": (negative, 32), "4.weight": (0, 24),
    }  # fmt: skip
    prune.remove(shared, "weight")
    assert fettle.sparsity(model).layers["0.weight"] == found["0.weight"]
