import json

import numpy as np
import onnx
import pytest
from onnx import helper

from fettle.core.errors import DataError, ModelError
from fettle.measure.saturation import saturation_of

F = np.float32
RNG = np.random.default_rng(0)
node = helper.make_node


def cut_sum(u, w, axis):
    """Sum u · w along `axis` in pairs of 16 bits; both int64."""
    u, w = (np.moveaxis(a, axis, 0) for a in np.broadcast_arrays(u, w))
    products = np.concatenate([u * w, np.zeros((len(u) % 2, *u.shape[1:]), np.int64)])
    pairs = products[0::2] + products[1::2]
    cut = np.clip(pairs, -(2**15), 2**15 - 1)
    return cut.sum(0), int((cut != pairs).sum()), pairs.size


def quantized(x, scale, zero):
    return np.clip(np.round(x / scale) + zero, 0, 255).astype(np.int64)


def linear(make_onnx, weight, zero=128, kind=np.uint8, op="MatMul", scale=0.02, **extra):
    """x (n, K) → Q, DQ → MatMul or Gemm with weights of scale 0.01."""
    held = {"s": F(scale), "z": kind(zero), "w": weight, "t": F(0.01), "u": np.int8(0)}
    steps = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["a"]),
        node("DequantizeLinear", ["w", "t", "u"], ["b"]),
        node(op, ["a", "b"], ["y"], name="layer", **extra),
    ]
    k = weight.shape[1] if extra.get("transB") else weight.shape[0]
    return make_onnx(steps, held, {"x": ["n", k]})


WEIGHT = RNG.integers(-127, 128, (9, 4)).astype(np.int8)
X = RNG.normal(0, 1.5, (7, 9)).astype(F)


def test_a_linear_layer_against_the_instruction(make_onnx):
    found = saturation_of(linear(make_onnx, WEIGHT), {"x": X}, batch=3)
    u, w = quantized(X, F(0.02), 128)[:, :, None], WEIGHT.astype(np.int64)[None]
    cut, saturated, pairs = cut_sum(u, w, axis=1)
    exact = (u * w).sum(1)
    output = 0.02 * 0.01 * ((u - 128) * w).sum(1)
    moved = 0.02 * 0.01 * (cut - exact)
    assert saturated > 0
    (layer,) = found.layers
    assert (layer.name, layer.op, layer.sums, layer.of) == ("layer", "MatMul", 28, 28)
    assert layer.share == found.share == pytest.approx(saturated / pairs)
    assert layer.touched == pytest.approx((cut != exact).mean())
    wanted = np.sqrt((moved**2).mean() / (output**2).mean())
    assert layer.change == pytest.approx(wanted, rel=1e-4)
    assert found.change == pytest.approx(wanted, rel=1e-4)
    same = (output.argmax(1) == (output + moved).argmax(1)).mean()
    assert found.agreement == pytest.approx(same)
    assert found.n == 7


def test_a_layer_that_must_saturate(make_onnx):
    """255 · 127 · 2 is cut to 32767 in each pair: 4 pairs, all of them."""
    path = linear(make_onnx, np.full((8, 2), 127, np.int8), zero=0)
    found = saturation_of(path, {"x": np.full((3, 8), 5.1, F)})
    assert (found.share, found.layers[0].touched) == (1.0, 1.0)
    assert found.change == pytest.approx(1 - 32767 / 64770, rel=1e-5)
    assert "without VNNI 100% of the sums" in found.warning
    assert "`layer`" in found.warning


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
def test_weights_of_7_bits_are_exactly_right(make_onnx, kind):
    path = linear(make_onnx, np.full((8, 2), 64, np.int8), zero=0, kind=kind)
    found = saturation_of(path, {"x": np.full((3, 8), 100.0, F)})
    assert (found.share, found.change, found.agreement, found.warning) == (0.0, 0.0, 1.0, None)


def test_the_7_bit_lowering_mends_what_the_other_leaves(make_onnx):
    path = linear(make_onnx, WEIGHT, zero=0, kind=np.int8)
    eight = saturation_of(path, {"x": X}, ["graph.lower_ort_x86"])
    seven = saturation_of(path, {"x": X}, ["graph.lower_ort_x86_7bit"])
    assert eight.share > 0
    assert seven.share == 0
    assert len(seven.layers) == 1


def test_signed_activations_count_as_the_engine_shifts_them(make_onnx):
    signed = saturation_of(linear(make_onnx, WEIGHT, zero=0, kind=np.int8), {"x": X})
    unsigned = saturation_of(linear(make_onnx, WEIGHT, zero=128), {"x": X})
    assert signed.share == unsigned.share > 0
    assert signed.change == pytest.approx(unsigned.change, rel=1e-5)


def test_a_gemm_of_transposed_weights(make_onnx):
    path = linear(make_onnx, WEIGHT.T.copy(), op="Gemm", transB=1, alpha=2.0)
    found = saturation_of(path, {"x": X})
    plain = saturation_of(linear(make_onnx, WEIGHT), {"x": X})
    assert found.share == plain.share > 0
    assert found.change == pytest.approx(plain.change, rel=1e-4)


def conv(make_onnx, weight, channels, **settings):
    held = {"s": F(0.02), "z": np.uint8(90), "w": weight, "u": np.zeros(len(weight), np.int8),
            "t": np.linspace(0.01, 0.02, len(weight), dtype=F)}  # fmt: skip
    steps = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["a"]),
        node("DequantizeLinear", ["w", "t", "u"], ["b"], axis=0),
        node("Conv", ["a", "b"], ["y"], **settings),
    ]
    return make_onnx(steps, held, {"x": ["n", channels, "h", "w_"]})


@pytest.mark.parametrize(("group", "channels"), [(1, 3), (1, 4), (2, 4), (2, 2)])
def test_convolutions_against_the_instruction(make_onnx, group, channels):
    """Stride 2, padding of zero points, per-channel scales, groups, odd channels, two outputs each.

    The last are no depthwise convolution for onnxruntime: a product of matrices, in pairs.
    """
    weight = RNG.integers(-127, 128, (4, channels // group, 3, 3)).astype(np.int8)
    path = conv(make_onnx, weight, channels, group=group, strides=[2, 2], pads=[1, 1, 1, 0])
    x = RNG.normal(0, 2, (2, channels, 7, 6)).astype(F)
    found = saturation_of(path, {"x": x})
    u = np.pad(quantized(x, F(0.02), 90), ((0, 0), (0, 0), (1, 1), (1, 0)), constant_values=90)
    saturated = pairs = 0
    moved, output = [], []
    for o in range(4):
        first = o // (4 // group) * (channels // group)
        w = np.moveaxis(weight[o].astype(np.int64), 0, -1).ravel()  # by place, then channel
        for n, i, j in np.ndindex(2, 4, 3):
            patch = u[n, first : first + channels // group, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
            patch = np.moveaxis(patch, 0, -1).ravel()
            cut, count, of = cut_sum(patch, w, 0)
            saturated, pairs = saturated + count, pairs + of
            scale = 0.02 * np.linspace(0.01, 0.02, 4)[o]
            moved.append(scale * (cut - (patch * w).sum()))
            output.append(scale * ((patch - 90) * w).sum())
    assert saturated > 0
    assert found.share == pytest.approx(saturated / pairs)
    wanted = np.sqrt(np.mean(np.square(moved)) / np.mean(np.square(output)))
    assert found.layers[0].change == pytest.approx(wanted, rel=1e-3)
    assert found.change == pytest.approx(wanted, rel=1e-3)


def test_same_padding_is_that_of_the_specification(make_onnx):
    weight = RNG.integers(-127, 128, (2, 2, 3, 3)).astype(np.int8)
    x = {"x": RNG.normal(0, 2, (1, 2, 6, 6)).astype(F)}
    settings = {"strides": [2, 2]}
    auto = saturation_of(conv(make_onnx, weight, 2, auto_pad="SAME_UPPER", **settings), x)
    told = saturation_of(conv(make_onnx, weight, 2, pads=[0, 0, 1, 1], **settings), x)
    assert auto == told
    assert auto.share > 0


@pytest.mark.parametrize("channels", [1, 4])
def test_depthwise_convolutions_are_exact(make_onnx, channels):
    weight = np.full((channels, 1, 3, 3), 127, np.int8)
    path = conv(make_onnx, weight, channels, group=channels)
    found = saturation_of(path, {"x": np.full((1, channels, 5, 5), 9, F)})
    assert (found.layers, found.share) == ((), 0.0)


def test_a_layer_feeds_its_error_to_the_next(make_onnx):
    """Two products that both cut everything: the second sees what the first got wrong."""
    weight = np.full((8, 8), 127, np.int8)
    held = {"s": F(0.02), "z": np.uint8(0), "w": weight, "t": F(0.001), "u": np.int8(0)}
    steps = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["a"]),
        node("DequantizeLinear", ["w", "t", "u"], ["b"]),
        node("MatMul", ["a", "b"], ["h"]),
        node("QuantizeLinear", ["h", "s", "z"], ["r"]),
        node("DequantizeLinear", ["r", "s", "z"], ["c"]),
        node("MatMul", ["c", "b"], ["y"]),
    ]
    path = make_onnx(steps, held, {"x": ["n", 8]})
    found = saturation_of(path, {"x": np.full((1, 8), 4.0, F)})
    cut = 4 * 32767 * 0.02 * 0.001  # 200 · 127 · 2 > 32767
    second = 4 * min(2 * round(cut / 0.02) * 127, 32767)
    exact = 8 * round(8 * 200 * 127 * 0.001) * 127
    assert found.change == pytest.approx(1 - second / exact, rel=1e-3)


def test_operators_of_integers_and_their_own_quantizing(make_onnx):
    """One product written in three ways saturates alike."""
    held = {"w": WEIGHT, "t": F(0.01), "u": np.int8(0)}
    dynamic = node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"])
    forms = {
        "MatMulInteger": [
            dynamic,
            node("MatMulInteger", ["q", "w", "z", "u"], ["i"]),
            node("Cast", ["i"], ["c"], to=1),
            node("Mul", ["s", "t"], ["st"]),
            node("Mul", ["c", "st"], ["y"]),
        ],
        "MatMulIntegerToFloat": [
            dynamic,
            node("MatMulIntegerToFloat", ["q", "w", "s", "t", "z", "u"], ["y"],
                 domain="com.microsoft"),
        ],
        "DynamicQuantizeMatMul": [
            node("DynamicQuantizeMatMul", ["x", "w", "t", "u"], ["y"], domain="com.microsoft")
        ],
    }  # fmt: skip
    found = [
        saturation_of(
            make_onnx(steps, held, {"x": ["n", 9]}, domains=("", "com.microsoft")), {"x": X}
        )
        for steps in forms.values()
    ]
    assert [one.layers[0].op for one in found] == list(forms)
    assert len({one.share for one in found}) == 1
    assert found[0].share > 0
    np.testing.assert_allclose([one.change for one in found], found[0].change, rtol=1e-4)


def test_a_qlinear_convolution_is_that_of_its_definition(make_onnx):
    weight = RNG.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8)
    held = {"s": F(0.02), "z": np.uint8(90), "w": weight, "u": np.int8(0), "t": F(0.01),
            "ys": F(0.5), "bias": np.array([900, -900, 0, 40], np.int32)}  # fmt: skip
    quantize = node("QuantizeLinear", ["x", "s", "z"], ["q"])
    leave = node("DequantizeLinear", ["r", "ys", "z"], ["y"])
    layer = node(
        "QLinearConv", ["q", "s", "z", "w", "t", "u", "ys", "z", "bias"], ["r"], pads=[1] * 4
    )
    x = {"x": RNG.normal(0, 2, (2, 3, 5, 5)).astype(F)}
    shapes = {"x": ["n", 3, "h", "w_"]}
    closed = saturation_of(make_onnx([quantize, layer, leave], held, shapes), x)
    steps = [
        quantize,
        node("DequantizeLinear", ["q", "s", "z"], ["a"]),
        node("DequantizeLinear", ["w", "t", "u"], ["b"]),
        node("Conv", ["a", "b", "f"], ["c"], pads=[1] * 4),
        node("QuantizeLinear", ["c", "ys", "z"], ["r"]),
        leave,
    ]
    held["f"] = (held["bias"] * F(0.02 * 0.01)).astype(F)
    opened = saturation_of(make_onnx(steps, held, shapes), x)
    assert closed.share == opened.share > 0
    assert closed.change == pytest.approx(opened.change, rel=1e-3)


def test_a_qlinear_convolution_of_an_old_operator_set(make_onnx):
    """Scales by channel, which the DequantizeLinear of operator set 10 doesn't know."""
    weight = np.full((2, 2, 1, 1), 127, np.int8)
    held = {"s": F(0.02), "z": np.uint8(0), "w": weight, "u": np.zeros(2, np.int8),
            "t": np.array([0.01, 0.02], F), "ys": F(0.9)}  # fmt: skip
    steps = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("QLinearConv", ["q", "s", "z", "w", "t", "u", "ys", "z"], ["r"]),
        node("DequantizeLinear", ["r", "ys", "z"], ["y"]),
    ]
    path = make_onnx(steps, held, {"x": ["n", 2, "h", "w_"]})
    model = onnx.load(path)
    model.opset_import[0].version = 10
    onnx.save(model, path)
    assert saturation_of(path, {"x": np.full((1, 2, 2, 2), 5.1, F)}).share == 1.0


def test_inputs_without_a_batch_are_taken_whole(make_onnx):
    path = make_onnx([node("Mul", ["x", "k"], ["y"])], {}, {"x": ["n", 2], "k": []})
    found = saturation_of(path, {"x": X[:, :2], "k": np.array(2, F)}, batch=2)
    assert (found.n, found.share) == (7, 0.0)


def test_too_much_work_is_sampled_and_said(make_onnx):
    weight = RNG.integers(-127, 128, (16, 8)).astype(np.int8)
    x = {"x": RNG.normal(0, 2, (400, 16)).astype(F)}
    path = linear(make_onnx, weight)
    whole, some = (saturation_of(path, x, batch=400, most=most) for most in (10**9, 4000))
    (layer,) = some.layers
    assert layer.sums < layer.of == 400 * 8
    assert (some.change, some.agreement) == (None, None)
    assert some.share == pytest.approx(whole.share, rel=0.2)
    assert layer.change == pytest.approx(whole.change, rel=0.2)


def test_what_can_not_be_reached_is_listed(make_onnx):
    held = {"w": np.zeros((1, 2, 8), np.int8), "r": np.zeros((1, 2, 8), np.int8),
            "t": np.ones((1,), F), "u": np.zeros((1,), np.int8)}  # fmt: skip
    lstm = node("DynamicQuantizeLSTM", ["x", "w", "r", "", "", "", "", "", "t", "u", "t", "u"],
                ["y"], name="memory", hidden_size=2, domain="com.microsoft")  # fmt: skip
    path = make_onnx([lstm], held, {"x": [3, "n", 2]}, domains=("", "com.microsoft"))
    found = saturation_of(path, {"x": np.zeros((3, 1, 2), F)})
    assert found.unchecked == ("memory",)
    assert found.warning is None


def test_a_float_model_has_nothing_to_saturate(make_onnx):
    path = make_onnx([node("Relu", ["x"], ["y"])], {}, {"x": ["n", 2]})
    assert saturation_of(path, {"x": X[:, :2]}).layers == ()


def test_json(make_onnx):
    found = saturation_of(linear(make_onnx, WEIGHT), {"x": X}).to_json()
    assert json.loads(json.dumps(found))["layers"][0]["name"] == "layer"
    assert found["warning"].startswith("without VNNI")


def test_wrong_input(make_onnx, tmp_path):
    path = linear(make_onnx, WEIGHT)
    with pytest.raises(DataError, match="at least 1 examples, got 0"):
        saturation_of(path, {"x": X[:0]})
    with pytest.raises(DataError, match="inputs are"):
        saturation_of(path, {"a": X, "b": X})
    with pytest.raises(ModelError, match="can't run"):
        saturation_of(path, {"x": X[:, :4]})
    with pytest.raises(ModelError):
        saturation_of(tmp_path / "none.onnx", {"x": X})


def test_a_fixed_batch_is_kept(make_onnx):
    path = linear(make_onnx, WEIGHT)
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 3
    onnx.save(model, path)
    assert saturation_of(path, {"x": X}).n == 6
    with pytest.raises(DataError, match="at least 3"):
        saturation_of(path, {"x": X[:2]})
