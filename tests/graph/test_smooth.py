import numpy as np
import onnx
import onnx_ir as ir
import pytest

from fettle.core.arrays import Batch
from fettle.core.errors import DataError, InputError, ModelError
from fettle.graph.smooth import Smooth

F = np.float32
CHANNELS = 8


class Rows:
    """Stands for a task: calibration examples of 5 tokens."""

    def __init__(self, x):
        self.x = x

    def batches(self, split, batch_size=256):
        assert split == "calibrate"
        for i in range(0, len(self.x), batch_size):
            part = self.x[i : i + batch_size]
            yield Batch({"x": part}, np.zeros(len(part), np.int64))

    def size(self, split):
        return len(self.x)


X = np.random.default_rng(0).normal(size=(24, 5, CHANNELS)).astype(F)
NORMS = {
    "fused": [("LayerNormalization", ["x", "g", "b"], ["n"], {"axis": -1})],
    "without bias": [("LayerNormalization", ["x", "g"], ["n"], {"axis": 2})],
    "written out": [
        ("ReduceMean", ["x", "last"], ["mean"]),
        ("Sub", ["x", "mean"], ["c"]),
        ("Mul", ["c", "c"], ["cc"]),
        ("ReduceMean", ["cc", "last"], ["var"]),
        ("Sqrt", ["var"], ["std"]),
        ("Div", ["c", "std"], ["h"]),
        ("Mul", ["g", "h"], ["gh"]),
        ("Add", ["gh", "b"], ["n"]),
    ],
    "root mean square": [
        ("Mul", ["x", "x"], ["xx"]),
        ("ReduceMean", ["xx", "last"], ["var"]),
        ("Sqrt", ["var"], ["std"]),
        ("Div", ["x", "std"], ["h"]),
        ("Mul", ["h", "g"], ["n"]),
    ],
}
READERS = [
    ("MatMul", ["n", "w"], ["q"]),
    ("Add", ["q", "c0"], ["y"]),
    ("Relu", ["n"], ["r"]),
    ("MatMul", ["r", "v"], ["z"]),
]
RESIDUAL = [*READERS, ("Add", ["n", "x"], ["s"])]


def network(build, norm="fused", readers=READERS):
    rng = np.random.default_rng(1)
    gamma = rng.uniform(0.5, 1.5, CHANNELS)
    gamma[3] *= 100  # the outlier
    held = {
        "g": gamma.astype(F), "b": rng.normal(size=CHANNELS).astype(F),
        "w": rng.normal(size=(CHANNELS, 6)).astype(F), "c0": rng.normal(size=6).astype(F),
        "v": rng.normal(size=(CHANNELS, 3)).astype(F), "last": np.array([-1], np.int64),
    }  # fmt: skip
    nodes = [*NORMS[norm], *readers]
    used = {name for node in nodes for name in node[1]}
    kinds = dict.fromkeys([n for n in "yzs" if n in {o for x in nodes for o in x[2]}], 1)
    held = {k: v for k, v in held.items() if k in used}
    return build(nodes, held, {"x": ["n", 5, CHANNELS]}, kinds)


def held(model):
    return {v.name: v.const_value.numpy().astype(np.float64)
            for v in model.graph.initializers.values()}  # fmt: skip


def same(run, graph, result):
    before, after = (run(m, {"x": X}) for m in (graph.proto, result))
    for name, expected in before.items():
        np.testing.assert_allclose(after[name], expected, rtol=1e-4, atol=1e-4)
    onnx.checker.check_model(ir.to_proto(result), full_check=True)


def range_of_norm(graph, run):
    """Return max|X_j| behind the norm, from the graph as it is written."""
    shown = onnx.ModelProto.FromString(graph.proto.SerializeToString())
    shown.graph.output.append(onnx.helper.make_tensor_value_info("n", 1, None))
    return np.abs(run(shown, {"x": X})["n"]).reshape(-1, CHANNELS).max(0)


@pytest.mark.parametrize("alpha", [0.5, 0.75])
@pytest.mark.parametrize("norm", NORMS)
def test_ranges_follow_the_formula_and_the_function_stays(build, run, norm, alpha):
    graph = network(build, norm)
    result = Smooth(alpha=alpha)(graph.ir, Rows(X))
    same(run, graph, result)
    before, after = held(graph.ir), held(result)
    x = range_of_norm(graph, run)
    w = np.max([np.abs(before[name]).max(1) for name in "wv"], axis=0)
    factor = x**alpha / w ** (1 - alpha)
    np.testing.assert_allclose(after["w"], before["w"] * factor[:, None], rtol=1e-5)
    np.testing.assert_allclose(after["v"], before["v"] * factor[:, None], rtol=1e-5)
    np.testing.assert_allclose(after["g"], before["g"] / factor, rtol=1e-5)
    if alpha == 0.5:  # both sides have the same range in every channel
        np.testing.assert_allclose(x / factor, w * factor, rtol=1e-5)


def test_alpha_1_levels_the_activations(build, run):
    graph = network(build)
    result = Smooth(alpha=1.0)(graph.ir, Rows(X))
    smoothed = onnx.ModelProto.FromString(ir.to_proto(result).SerializeToString())
    smoothed.graph.output.append(onnx.helper.make_tensor_value_info("n", 1, None))
    found = np.abs(run(smoothed, {"x": X})["n"]).reshape(-1, CHANNELS).max(0)
    np.testing.assert_allclose(found, 1, rtol=1e-5)


def quantized(array, axes=None):
    scale = np.abs(array).max(axis=axes, keepdims=True) / 127
    return np.rint(array / scale) * scale


def test_int8_products_get_nearer(build, run):
    graph = network(build)
    errors = []
    for model in (graph.proto, ir.to_proto(Smooth()(graph.ir, Rows(X)))):
        shown = onnx.ModelProto.FromString(model.SerializeToString())
        shown.graph.output.append(onnx.helper.make_tensor_value_info("n", 1, None))
        n = run(shown, {"x": X})["n"].astype(np.float64)
        w = held(ir.from_proto(model))["w"]
        errors.append(np.square(quantized(n) @ quantized(w, 0) - n @ w).mean())
    assert errors[1] < 0.2 * errors[0]


def test_a_norm_with_other_readers_stays_unless_a_mul_may_be_inserted(build, run):
    graph = network(build, readers=RESIDUAL)
    before = held(graph.ir)
    untouched = Smooth()(graph.ir, Rows(X))
    for name, array in held(untouched).items():
        np.testing.assert_array_equal(array, before[name])
    result = Smooth(insert=True)(graph.ir, Rows(X))
    same(run, graph, result)
    muls = [node for node in result.graph if node.op_type == "Mul"]
    assert len(muls) == 1
    x, w = range_of_norm(graph, run), np.abs(before["w"]).max(1)  # v reads behind a Relu
    np.testing.assert_allclose(muls[0].inputs[1].const_value.numpy(), np.sqrt(w / x), rtol=1e-5)
    np.testing.assert_array_equal(held(result)["g"], before["g"])


def test_batches_make_no_difference_and_samples_are_heeded(build):
    first, second, third = (
        held(Smooth(batch_size=size, samples=n)(network(build).ir, Rows(X)))["w"]
        for size, n in ((24, 24), (5, 24), (24, 2))
    )
    np.testing.assert_array_equal(first, second)
    assert (first != third).any()


def test_dead_channels_stay_finite(build, run):
    graph = network(build)
    model = graph.ir
    for name in ("g", "b"):
        array = model.graph.initializers[name].const_value.numpy().copy()
        array[2] = 0
        model.graph.initializers[name].const_value = ir.tensor(array)
    before = held(model)
    after = held(Smooth()(model, Rows(X)))
    assert all(np.isfinite(array).all() for array in after.values())
    np.testing.assert_array_equal(after["w"][2], before["w"][2])


def test_bad_input_is_refused(build):
    with pytest.raises(InputError, match="give a task"):
        Smooth()(network(build).ir, None)
    with pytest.raises(DataError, match="NaN"):
        Smooth()(network(build).ir, Rows(X * F(np.nan)))
    with pytest.raises(DataError, match="no calibration batch"):
        Smooth()(network(build).ir, Rows(X[:0]))
    constant = np.ones_like(X)  # a root-mean-square of zero divides by it
    with pytest.raises(ModelError, match="NaN or infinite"):
        Smooth()(network(build, "written out").ir, Rows(constant))
    nodes = [("DequantizeLinear", ["q", "s"], ["w"]), ("MatMul", ["x", "w"], ["y"])]
    coded = {"q": np.ones((CHANNELS, 4), np.int8), "s": np.array(0.1, F)}
    with pytest.raises(ModelError, match="quantized already"):
        Smooth()(build(nodes, coded, {"x": ["n", 5, CHANNELS]}).ir, Rows(X))
