import itertools

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from fettle.core.errors import DataError, ModelError
from fettle.graph import _adaround
from fettle.graph._adaround import descend, round_adaptively
from fettle.graph._layers import layers
from fettle.graph._moments import columns

F = np.float32


def correlated(n, seed, shape=(6, 8, 8)):
    """Inputs whose neighbours are alike, as those of a network are."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, *shape))
    mixed = np.einsum("nchw,dc->ndhw", x, np.random.default_rng(9).normal(size=(shape[0],) * 2))
    return np.maximum(mixed + np.roll(mixed, 1, 2) + np.roll(mixed, 1, 3), 0).astype(F)


X = correlated(48, 0)


def batches(x=X, size=16):
    return lambda: ({"x": x[i : i + size]} for i in range(0, len(x), size))


LAYERS = {
    "conv": (("Conv", ["x", "w"], ["y"], {"pads": [1, 1, 1, 1], "strides": [2, 2]}), (8, 6, 3, 3)),
    "dilated": (("Conv", ["x", "w"], ["y"], {"dilations": [2, 1], "pads": [0, 1, 1, 0]}),
                (8, 6, 3, 3)),
    "grouped": (("Conv", ["x", "w"], ["y"], {"group": 2, "auto_pad": "SAME_LOWER"}), (8, 3, 3, 2)),
    "depthwise": (("Conv", ["x", "w"], ["y"], {"group": 6}), (6, 1, 3, 3)),
    "matmul": (("MatMul", ["x", "w"], ["y"]), (8, 5)),
}  # fmt: skip


def both(build, kind, bits=3):
    node, shape = LAYERS[kind]
    weight = np.random.default_rng(1).normal(size=shape).astype(F)
    axis = 1 if kind == "matmul" else 0
    others = tuple(i for i in range(weight.ndim) if i != axis)
    scale = np.abs(weight).max(axis=others) / F(2 ** (bits - 1) - 1)
    wide = scale.reshape([-1 if i == axis else 1 for i in range(weight.ndim)])
    held = {"q": np.rint(weight / wide).astype(np.int8), "s": scale.astype(F)}
    inputs = {"x": ["n", 6, 8, 8]}
    original = build([node], {"w": weight}, inputs)
    dequantize = ("DequantizeLinear", ["q", "s"], ["w"], {"axis": axis})
    return original, build([dequantize, node], held, inputs), weight / wide


def integers(model):
    return model.graph.initializers["q"].const_value.numpy()


def error(original, model, x):
    outputs = [ReferenceEvaluator(p).run(None, {"x": x})[0] for p in (original.proto, model)]
    return float(np.square(outputs[0].astype(np.float64) - outputs[1]).mean())


@pytest.mark.parametrize("kind", LAYERS)
def test_unseen_inputs_are_reconstructed_better_than_by_nearest(build, kind):
    original, quantized, wanted = both(build, kind)
    model = quantized.ir
    round_adaptively(model, original.ir, batches(), 0)
    found = integers(model)
    assert found.dtype == np.int8
    assert np.abs(found - wanted).max() < 1 + 1e-6  # floor or ceiling
    assert np.abs(found).max() <= 3
    unseen = correlated(16, 5)
    after, before = (error(original, m, unseen) for m in (ir.to_proto(model), quantized.proto))
    assert after < (0.95 if kind in ("depthwise", "matmul") else 0.7) * before
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


@pytest.mark.parametrize("kind", ["conv", "dilated", "grouped", "depthwise"])
def test_patches_times_the_weight_are_the_convolution(build, kind):
    original, _, _ = both(build, kind)
    layer = next(layers(original.ir.graph))
    x = correlated(2, 3, (6, 13, 14))
    y = ReferenceEvaluator(original.proto).run(None, {"x": x})[0]  # (2, outputs, h, w)
    seen = columns(layer, x, np.random.default_rng(0))
    weight = layer.canonical(layer.weight).reshape(layer.groups, -1, seen.shape[-1])
    made = (seen @ weight.swapaxes(1, 2)).reshape(layer.groups, 2, 32, -1)
    made = made.transpose(1, 0, 3, 2).reshape(2, -1, 32)  # (2, outputs, positions)
    places = np.random.default_rng(0).choice(y[0, 0].size, 32, replace=False)
    np.testing.assert_allclose(made, y.reshape(2, -1, y[0, 0].size)[:, :, places], atol=1e-4)


def objective(chosen, wanted, moment):
    e = (chosen - wanted).astype(np.float64)
    return np.einsum("gok,gkl,gol->go", e, moment.astype(np.float64), e)


@pytest.mark.parametrize("count", [7, 300])
def test_the_descent_ends_where_no_single_turn_gains(count):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 2000, count)) @ rng.normal(size=(count, count))
    moment = (x.swapaxes(1, 2) @ x / 2000).astype(F)
    wanted = rng.uniform(-6, 6, (1, 4, count)).astype(F)
    nearest = np.rint(wanted)
    found = descend(wanted, nearest, moment, (-7, 7))
    damped = moment + 0.01 * np.eye(count) * np.diagonal(moment[0]).mean()
    best = objective(found, wanted, damped)
    begun = objective(nearest, wanted, damped)
    assert (best <= begun).all()
    assert best.sum() < begun.sum()
    turned = 2 * np.floor(wanted) + 1 - found
    few = 0.01 * count
    gains = 0
    for j in range(count):
        other = found.copy()
        other[:, :, j] = turned[:, :, j]
        gains += (objective(other, wanted, damped) < best * (1 - 1e-4)).sum()
    assert gains <= few


def test_it_is_near_the_best_of_all_roundings():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(1, 500, 8)) @ rng.normal(size=(8, 8))
    moment = (x.swapaxes(1, 2) @ x / 500).astype(F)
    wanted = rng.uniform(-3, 3, (1, 20, 8)).astype(F)
    corners = np.array(list(itertools.product((0, 1), repeat=8)))
    every = np.floor(wanted) + corners[:, None, None]  # (256, 1, 20, 8)
    best = np.min([objective(each, wanted, moment) for each in every], axis=0)
    begun = objective(np.rint(wanted), wanted, moment)
    found = objective(descend(wanted, np.rint(wanted), moment, (-9, 9)), wanted, moment)
    assert ((found - best) / (begun - best + 1e-9)).mean() < 0.5


def test_bounds_hold():
    wanted = np.array([[[-3.0001, 2.9, 3.0001]]], F)
    found = descend(wanted, np.rint(wanted), np.ones((1, 3, 3), F), (-3, 3))
    assert np.abs(found).max() <= 3


def test_parts_and_batches_make_no_difference(build, monkeypatch):
    rng = np.random.default_rng(2)
    nodes = [("Conv", ["x", "w"], ["a"]), ("Relu", ["a"], ["r"]), ("Conv", ["r", "v"], ["y"])]
    weights = {"w": rng.normal(size=(4, 6, 3, 3)).astype(F),
               "v": rng.normal(size=(4, 4, 1, 1)).astype(F)}  # fmt: skip
    coded, front = {}, []
    for name, weight in weights.items():
        scale = F(np.abs(weight).max() / 3)
        coded |= {f"{name}q": np.rint(weight / scale).astype(np.int8), f"{name}s": scale}
        front.append(("DequantizeLinear", [f"{name}q", f"{name}s"], [name]))
    inputs = {"x": ["n", 6, 8, 8]}
    original, quantized = build(nodes, weights, inputs), build([*front, *nodes], coded, inputs)
    found = []
    for budget in (_adaround._BUDGET, 1):
        monkeypatch.setattr(_adaround, "_BUDGET", budget)
        model = quantized.ir
        round_adaptively(model, original.ir, batches(size=48 if budget > 1 else 8), 0)
        found.append(model.graph.initializers["wq"].const_value.numpy())
    np.testing.assert_array_equal(*found)
    assert (found[0] != coded["wq"]).any()


def test_shared_and_transposed_weights_stay(build):
    rng = np.random.default_rng(3)
    for nodes in (
        [("MatMul", ["x", "w"], ["a"]), ("MatMul", ["a", "w"], ["y"])],
        [("ConvTranspose", ["x", "w4"], ["y"])],
    ):
        held = {"q": rng.integers(-3, 4, (8, 8)).astype(np.int8),
                "q4": rng.integers(-3, 4, (6, 2, 2, 2)).astype(np.int8), "s": F(0.1)}  # fmt: skip
        name = "w" if nodes[0][0] == "MatMul" else "w4"
        front = ("DequantizeLinear", [name.replace("w", "q"), "s"], [name])
        inputs = {"x": ["n", 6, 8, 8]}
        weight = held[name.replace("w", "q")] * 0.1 + rng.uniform(-0.04, 0.04)
        original = build(nodes, {name: weight.astype(F)}, inputs)
        model = build([front, *nodes], {front[1][0]: held[front[1][0]], "s": F(0.1)}, inputs).ir
        round_adaptively(model, original.ir, batches(), 0)
        after = model.graph.initializers[front[1][0]].const_value.numpy()
        np.testing.assert_array_equal(after, held[front[1][0]])


def test_bad_data_is_refused(build):
    original, quantized, _ = both(build, "conv")
    with pytest.raises(DataError, match="no batch of the size"):
        round_adaptively(quantized.ir, original.ir, lambda: iter(()), 0)
    with pytest.raises(ModelError, match="NaN or infinite"):
        round_adaptively(quantized.ir, original.ir, batches(X * F(np.nan)), 0)


def test_one_example_and_constant_inputs_leave_sound_integers(build):
    for x in (X[:1], np.ones_like(X), np.zeros_like(X)):
        original, quantized, wanted = both(build, "conv")
        model = quantized.ir
        round_adaptively(model, original.ir, batches(x), 0)
        found = integers(model)
        assert np.abs(found - wanted).max() < 1 + 1e-6  # floor or ceiling
