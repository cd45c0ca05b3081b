import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fettle.core.errors import InputError, ModelError
from fettle.search._kernel_widths import narrowed
from fettle.search._kernels import kernels_of


def split(path):
    kernels = kernels_of(onnx.load(path), {"x": (2, 3, 8, 8)})
    return [k for k in kernels if k.op in ("Conv", "Gemm")]


@pytest.mark.parametrize("quantized", [False, True])
def test_half_of_a_layer_is_the_layer_of_a_network_half_as_wide(residual, quantized):
    """The same key: nothing that matters to the time tells them apart."""
    wide = split(residual(channels=16, quantized=quantized))
    thin = split(residual(channels=8, quantized=quantized, name="thin.onnx"))
    stem, inner, last, head = wide
    assert narrowed(stem, outputs=0.5).key == thin[0].key
    assert narrowed(inner, outputs=0.5, inputs=0.5).key == thin[1].key
    assert narrowed(last, outputs=0.5, inputs=0.5).key == thin[2].key
    assert narrowed(head, inputs=0.5).key == thin[3].key


def test_the_whole_is_the_same_kernel(residual):
    for kernel in split(residual()):
        assert narrowed(kernel).key == kernel.key


def test_only_the_inputs_can_go(residual):
    inner = narrowed(split(residual(channels=16))[1], inputs=0.25)
    assert inner.weights["block0.a.weight"].dims == [16, 4, 3, 3]
    assert inner.weights["block0.a.bias"].dims == [16]
    assert [t.shape for t in inner.inputs] == [(2, 4, 8, 8)]


def test_one_channel_stays(residual):
    inner = narrowed(split(residual())[1], outputs=0.01, inputs=0.01)
    assert inner.weights["block0.a.weight"].dims == [1, 1, 3, 3]


def depthwise(groups=8):
    weight = np.ones((8, 8 // groups, 3, 3), np.float32)
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], "dw", pads=[1] * 4, group=groups)]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8, 4, 4])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    held = [numpy_helper.from_array(weight, "w")]
    graph = helper.make_graph(nodes, "g", [given], [out], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return kernels_of(model, {"x": (2, 8, 4, 4)})[0]


def test_a_depthwise_convolution_keeps_as_many_groups_as_channels():
    found = narrowed(depthwise(), inputs=0.5)
    assert found.weights["w"].dims == [4, 1, 3, 3]
    assert found.inputs[0].shape == (2, 4, 4, 4)
    (node,) = found.nodes
    assert {a.name: a.i for a in node.attribute}["group"] == 4


@pytest.mark.parametrize("share", [0, -0.5, 1.5, float("nan")])
def test_shares_are_of_the_whole(residual, share):
    with pytest.raises(InputError, match="expected in"):
        narrowed(split(residual())[0], outputs=share)


def test_what_has_no_channels_of_its_own_is_refused(residual):
    pool = kernels_of(onnx.load(residual()), {"x": (2, 3, 8, 8)})[3]
    with pytest.raises(ModelError, match="no convolution or product"):
        narrowed(pool, outputs=0.5)
    with pytest.raises(ModelError, match="in groups"):
        narrowed(depthwise(groups=2), outputs=0.5)
