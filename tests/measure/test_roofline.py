import json
from math import prod

import numpy as np
import pytest
from onnx import helper

from fettle.core.errors import InputError, ModelError
from fettle.measure._padding import products_inside
from fettle.measure._traffic import traffic_of
from fettle.measure.macs import macs_of
from fettle.measure.peaks import Peak, Peaks
from fettle.measure.roofline import bounds_of, roofline
from fettle.runtimes import LayerPrecision
from fettle.runtimes.onnxruntime import OnnxRuntime
from fettle.runtimes.openvino import OpenVino

NODE = helper.make_node
# 1 operation or byte a ms = 1000 a second
PEAKS = Peaks(1, {"f32": Peak(1e3, "", ""), "bf16": Peak(2e3, "", ""), "int8": Peak(4e3, "", "")},
              ((0, 1e3),), {})  # fmt: skip
FREE_BYTES = Peaks(1, PEAKS.operations, ((0, 1e30),), {})


def ones(*shape, dtype=np.float32):
    return np.ones(shape, dtype=dtype)


def quantized(x, scale="s", zero="z"):
    """Return the nodes that quantize and dequantize `x`, and the name of the result."""
    return [NODE("QuantizeLinear", [x, scale, zero], [f"{x}_q"]),
            NODE("DequantizeLinear", [f"{x}_q", scale, zero], [f"{x}_d"])], f"{x}_d"  # fmt: skip


@pytest.fixture
def product(make_onnx):
    return make_onnx([NODE("MatMul", ["x", "w"], ["y"], name="m")],
                     {"w": ones(5, 7)}, {"x": ["n", 3, 5]})  # fmt: skip


@pytest.mark.parametrize("batch", [1, 4])
def test_a_product(product, batch):
    """y (n, 3, 7) = x (n, 3, 5) · w (5, 7)."""
    (step,) = traffic_of(product, {"x": (batch, 3, 5)}).steps
    assert step.macs == step.products == batch * 3 * 5 * 7
    assert step.bytes_at(4) == 4 * (5 * 7 + batch * 3 * 5 + batch * 3 * 7)
    assert step.bytes_at(2) == step.bytes_at(4) / 2


def test_bounds_by_hand(product):
    layers = [LayerPrecision("m", "MatMul", "f32")]
    (bound,) = bounds_of(traffic_of(product), layers, PEAKS).layers
    assert bound.compute_ms == pytest.approx(2 * 3 * 5 * 7)
    assert bound.memory_ms == pytest.approx(4 * (35 + 15 + 21))
    assert bound.bound_ms == bound.memory_ms
    assert bound.limit == "memory"
    (bound,) = bounds_of(traffic_of(product), layers, FREE_BYTES).layers
    assert (bound.bound_ms, bound.limit) == (bound.compute_ms, "compute")


@pytest.mark.parametrize(("precision", "times"), [("f32", 1), ("bf16", 2), ("int8", 4)])
def test_the_precision_that_the_engine_tells_sets_the_peak(product, precision, times):
    found = bounds_of(traffic_of(product), [LayerPrecision("m", "MatMul", precision)], FREE_BYTES)
    assert found.layers[0].precision == precision
    assert found.bound_ms == pytest.approx(2 * 3 * 5 * 7 / times)


def test_elementwise_operators_and_views_move_only_what_else_they_read(make_onnx):
    """Relu, Reshape and Softmax are free; the residual Add reads what the first product made."""
    nodes = [NODE("MatMul", ["x", "w"], ["h"]), NODE("Relu", ["h"], ["r"]),
             NODE("Add", ["r", "b"], ["a"]), NODE("Reshape", ["a", "shape"], ["t"]),
             NODE("Softmax", ["t"], ["s"]), NODE("MatMul", ["s", "w2"], ["h2"]),
             NODE("Add", ["h2", "r"], ["y"])]  # fmt: skip
    held = {"w": ones(8, 8), "b": ones(8), "w2": ones(8, 8), "shape": np.array([-1, 8])}
    first, second = traffic_of(make_onnx(nodes, held, {"x": [2, 8]})).steps
    assert first.weights.floats == 64 + 8
    assert first.activations.floats == 16 + 16 + 16  # x; `a` for the next product, `r` for the sum
    assert second.activations.floats == 16 + 16 + 16
    assert len(first.nodes) == 5


def test_integers_count_a_byte(make_onnx):
    """Between two quantized products an int8 tensor crosses, though the graph says float."""
    head, x = quantized("x")
    middle, h = quantized("h")
    weights = [NODE("DequantizeLinear", [f"w{i}", "s", "z"], [f"w{i}_d"]) for i in (1, 2)]
    nodes = [*weights, *head, NODE("MatMul", [x, "w1_d"], ["h"]), *middle,
             NODE("MatMul", [h, "w2_d"], ["y"])]  # fmt: skip
    held = {"w1": ones(8, 8, dtype=np.int8), "w2": ones(8, 8, dtype=np.int8),
            "s": np.float32(0.1), "z": np.int8(0)}  # fmt: skip
    first, second = traffic_of(make_onnx(nodes, held, {"x": [1, 8]})).steps
    assert (first.quantized, second.quantized) == (True, True)
    assert (first.weights.fixed, first.weights.floats) == (64, 0)
    assert (first.activations.fixed, first.activations.floats) == (8, 8)  # x comes in float
    assert (second.activations.fixed, second.activations.floats) == (8, 8)  # y leaves in float


def test_of_an_embedding_only_the_rows_count_that_are_looked_up(make_onnx):
    nodes = [NODE("Cast", ["ids"], ["i"], to=7), NODE("Gather", ["table", "i"], ["e"]),
             NODE("MatMul", ["e", "w"], ["y"])]  # fmt: skip
    path = make_onnx(nodes, {"table": ones(10_000, 4), "w": ones(4, 2)}, {"ids": [1, 3]})
    assert sum(step.bytes_at(4) for step in traffic_of(path).steps) == 4 * (8 + 12 + 6)


@pytest.mark.parametrize(("size", "kernel", "stride", "pad", "dilation"),
                         [(7, 3, 1, 1, 1), (8, 3, 2, 1, 1), (9, 5, 2, 2, 1), (9, 3, 1, 2, 2),
                          (6, 1, 2, 0, 1)])  # fmt: skip
def test_products_with_padding_are_left_out(size, kernel, stride, pad, dilation):
    """Against a walk over a padded image that counts where a number stands."""
    inside = np.pad(ones(size), pad, constant_values=0)
    reach = (kernel - 1) * dilation + 1
    starts = range(0, len(inside) - reach + 1, stride)
    count = sum(inside[s : s + reach : dilation].sum() for s in starts)
    node = NODE("Conv", ["x", "w"], ["y"], pads=[pad] * 4, strides=[stride] * 2,
                dilations=[dilation] * 2)  # fmt: skip
    out = (1, 8, len(starts), len(starts))
    shapes = {"x": (1, 4, size, size), "w": (8, 4, kernel, kernel), "y": out}
    macs = prod(out) * 4 * kernel**2
    assert products_inside(node, shapes, macs) == 8 * 4 * count**2


def test_a_strided_convolution_reads_what_it_multiplies(make_onnx):
    node = NODE("Conv", ["x", "w"], ["y"], strides=[2, 2])
    (step,) = traffic_of(make_onnx([node], {"w": ones(8, 4, 1, 1)}, {"x": [1, 4, 8, 8]})).steps
    assert step.activations.floats == 4 * 4 * 4 + 8 * 4 * 4


def test_the_scores_of_an_attention_stay_inside(make_onnx):
    nodes = [NODE("MatMul", ["q", "k"], ["s"]), NODE("Softmax", ["s"], ["p"]),
             NODE("MatMul", ["p", "v"], ["y"])]  # fmt: skip
    shapes = {"q": [1, 6, 4], "k": [1, 4, 6], "v": [1, 6, 4]}
    first, second = traffic_of(make_onnx(nodes, {}, shapes)).steps
    assert (first.activations.floats, second.activations.floats) == (24 + 24, 24 + 24)


def test_more_of_anything_never_lowers_the_bound(make_onnx):
    def bound(channels, batch, peaks=PEAKS):
        node = NODE("Conv", ["x", "w"], ["y"], pads=[1] * 4, name="c")
        path = make_onnx([node], {"w": ones(channels, 4, 3, 3)}, {"x": ["n", 4, 6, 6]})
        return bounds_of(traffic_of(path, {"x": (batch, 4, 6, 6)}), [], peaks).bound_ms

    assert bound(8, 1) < bound(16, 1) < bound(16, 4)
    assert bound(16, 4, FREE_BYTES) <= bound(16, 4)


@pytest.mark.parametrize("runtime", [OnnxRuntime(threads=1), OpenVino(threads=1)])
def test_a_session_tells_its_precision(product, runtime):
    session = runtime.build(product)
    found = roofline(product, session, {"anything": ones(2, 3, 5)}, PEAKS)
    assert [layer.precision for layer in found.layers] == ["f32"]
    assert sum(layer.macs for layer in found.layers) == 2 * macs_of(product)
    assert found.fraction(2 * found.bound_ms) == 0.5
    assert json.loads(json.dumps(found.to_json()))["bound_ms"] == found.bound_ms


@pytest.mark.parametrize("time", [0.0, -1.0, float("nan")])
def test_a_time_that_is_none(product, time):
    with pytest.raises(InputError, match="positive"):
        bounds_of(traffic_of(product), [], PEAKS).fraction(time)


def test_no_model(tmp_path):
    with pytest.raises(ModelError, match="expected"):
        traffic_of(tmp_path / "none.onnx")
