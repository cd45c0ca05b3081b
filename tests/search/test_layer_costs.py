"""From layers' times and damages to problems, and to the nodes' and the modules' names."""

import math

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from fettle.export import export_onnx
from fettle.search._kernels import kernels_of
from fettle.search._layer_costs import (
    Layer,
    Removable,
    in_float,
    precisions,
    shapes,
)
from fettle.search._layer_names import layers_by_node
from fettle.search.allocation import fastest, least_damage
from fettle.testing import TinyTask


class PlayedTimes:
    """Kernels that take as many ms as their first input and their weights have numbers, / 1000."""

    def __init__(self):
        self.calls = 0

    def kernels(self, path):
        return kernels_of(onnx.load(path), {"x": (1, 8, 4, 4)})

    def ms(self, kernels):
        self.calls += 1
        return [sum(int(np.prod(t.dims)) for t in k.weights.values()) / 1000 for k in kernels]


def chain(folder):
    """Three convolutions in a row of 8, 16 and 16 channels."""
    rng = np.random.default_rng(0)
    held = {"w0": (16, 8, 3, 3), "w1": (16, 16, 3, 3), "w2": (4, 16, 3, 3)}
    tensors = [numpy_helper.from_array(rng.normal(size=s).astype("f"), n) for n, s in held.items()]
    nodes = [
        helper.make_node("Conv", [given, f"w{i}"], [f"y{i}"], f"conv{i}", pads=[1, 1, 1, 1])
        for i, given in enumerate(["x", "y0", "y1"])
    ]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, c, 4, 4])
        for name, c in (("x", 8), ("y2", 4))
    ]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], tensors)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9),
        folder / "chain.onnx",
    )
    return folder / "chain.onnx"


def ms(outs, ins):
    return outs * ins * 9 / 1000


def test_the_layer_that_matters_most_for_its_time_stays_in_float():
    damage = {"a": 1.0, "b": 5.0, "c": 5.0}
    problem = precisions(damage, {"a": 1.0, "b": 1.0, "c": 8.0}, 3.0)
    assert in_float(least_damage(problem, 4.0)) == ["b"]
    assert in_float(least_damage(problem, 5.0)) == ["a", "b"]
    assert in_float(fastest(problem)) == []
    assert fastest(problem).ms == 3.0


def test_a_layer_that_is_slower_in_int8_stays_in_float():
    problem = precisions({"a": 0.0, "b": 0.0}, {"a": -1.0, "b": 1.0}, 4.0)
    assert in_float(fastest(problem)) == ["a"]


def test_a_layer_that_can_not_be_left_is_not_left():
    problem = precisions({"a": 9.0, "b": 1.0}, {"a": math.inf, "b": 1.0}, 4.0)
    assert in_float(least_damage(problem, 100.0)) == ["b"]


def test_widths_change_both_layers_that_share_them(tmp_path):
    times = PlayedTimes()
    kernels = times.kernels(chain(tmp_path))
    layers = [Layer(kernels[0], "", "g0"), Layer(kernels[1], "g0", "g1"), Layer(kernels[2], "g1")]
    removable = Removable({"g0": 16, "g1": 16}, {"g0": {8: 1.0}, "g1": {8: 2.0, 4: 7.0}}, {})
    problem = shapes(removable, layers, times)
    assert times.calls == 1
    assert problem.unchanged.ms == pytest.approx(ms(16, 8) + ms(16, 16) + ms(4, 16))
    both = problem.allocation({"g0": "8", "g1": "4"})
    assert both.ms == pytest.approx(ms(8, 8) + ms(4, 8) + ms(4, 4))
    assert both.damage == 8.0
    cheapest = least_damage(problem, problem.unchanged.ms - 0.1)
    assert cheapest.chosen == {"g0": "8", "g1": "16"}


def test_a_dropped_block_takes_its_layers_and_their_damage_with_it(tmp_path):
    times = PlayedTimes()
    kernels = times.kernels(chain(tmp_path))
    layers = [Layer(kernels[0], block="b"), Layer(kernels[1], makes="g", block="b"),
              Layer(kernels[2])]  # fmt: skip
    removable = Removable({"g": 16}, {"g": {8: 1.0}}, {"b": 3.0}, {"g": "b"})
    problem = shapes(removable, layers, times)
    for width in ("16", "8"):
        gone = problem.allocation({"g": width, "b": "dropped"})
        assert (gone.damage, gone.ms) == pytest.approx((3.0, ms(4, 16)))


def test_what_can_not_be_narrowed_shrinks_with_its_products(tmp_path):
    times = PlayedTimes()
    kernels = times.kernels(chain(tmp_path))
    for node in kernels[1].nodes:  # in groups: its weights are no longer whole
        node.attribute.append(helper.make_attribute("group", 2))
    removable = Removable({"g": 16}, {"g": {8: 1.0}}, {})
    problem = shapes(removable, [Layer(kernels[1], "g", "")], times)
    assert problem.allocation({"g": "8"}).ms == pytest.approx(ms(16, 16) / 2)


class Mixed(nn.Module):
    """Two convolutions of one shape behind a batch norm each, a product of activations, a head."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, padding=1)
        self.norm, self.again = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.c, self.head = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.Linear(4 * 36, 4)

    def forward(self, x):
        y = self.again(self.c(torch.relu(self.norm(self.b(self.a(x))))))
        return self.head((y @ y.transpose(2, 3)).flatten(1))


def test_nodes_are_found_by_their_order_and_shapes(tmp_path):
    export_onnx(Mixed().eval(), TinyTask(), tmp_path / "m")
    shapes = {n: tuple(m.weight.shape) for n, m in Mixed().named_modules()
              if isinstance(m, nn.Conv2d | nn.Linear)}  # fmt: skip
    found = layers_by_node(tmp_path / "m" / "model.onnx", shapes)
    assert list(found.values()) == ["a", "b", "c", "head"]


def test_nodes_that_are_no_known_layer_have_no_name(tmp_path):
    path = chain(tmp_path)
    assert layers_by_node(path, {"first": (16, 8, 3, 3)}) == {"conv0": "first"}
    assert layers_by_node(path, {"other": (5, 5)}) == {}
