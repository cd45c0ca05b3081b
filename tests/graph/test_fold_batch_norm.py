import numpy as np
import pytest

from fettle.core.shelf import PASSES

F = np.float32
RNG = np.random.default_rng(0)
NORM = {
    "gamma": RNG.normal(1, 0.3, 6).astype(F),
    "beta": RNG.normal(0, 1, 6).astype(F),
    "mean": RNG.normal(0, 1, 6).astype(F),
    "variance": RNG.uniform(0.1, 3, 6).astype(F),
}
BATCH_NORM = ("BatchNormalization", ["h", "gamma", "beta", "mean", "variance"], ["y"])
BIAS = {"b": RNG.normal(0, 1, 6).astype(F)}
IMAGE = {"x": ["n", 4, 5, 5]}
X = RNG.normal(0, 1, (3, 4, 5, 5)).astype(F)

CONVOLUTIONS = {
    "conv": (("Conv", ["x", "w"], ["h"]), (6, 4, 3, 3)),
    "conv with bias": (("Conv", ["x", "w", "b"], ["h"]), (6, 4, 3, 3)),
    "grouped": (("Conv", ["x", "w"], ["h"], {"group": 2}), (6, 2, 3, 3)),
    "transposed": (("ConvTranspose", ["x", "w", "b"], ["h"]), (4, 6, 3, 3)),
    "grouped transposed": (("ConvTranspose", ["x", "w", "b"], ["h"], {"group": 2}), (4, 3, 3, 3)),
}


def folded(graph):
    return PASSES.make("graph.fold_batch_norm")(graph.ir)


def operators(model):
    return [node.op_type for node in model.graph]


def weight(shape):
    return {"w": np.random.default_rng(1).normal(0, 0.3, shape).astype(F)}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_batch_norm_goes_into_the_convolution(build, run, name):
    layer, shape = CONVOLUTIONS[name]
    norm = (*BATCH_NORM, {"epsilon": 0.01})
    graph = build([layer, norm], {**NORM, **BIAS, **weight(shape)}, IMAGE)
    result = folded(graph)
    assert operators(result) == [layer[0]]
    found, expected = (run(m, {"x": X})["y"] for m in (result, graph.proto))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("bias", [None, (6,), (1, 6), (1,)])
def test_a_batch_norm_goes_into_a_gemm(build, run, transposed, bias):
    attributes = {"transB": transposed, "alpha": 0.5}
    gemm = ("Gemm", ["x", "w", *(["c"] if bias else [])], ["h"], attributes)
    held = {**NORM, **weight((6, 4) if transposed else (4, 6)), "c": np.full(bias or 1, 0.7, F)}
    graph = build([gemm, BATCH_NORM], held)
    result = folded(graph)
    assert operators(result) == ["Gemm"]
    x = RNG.normal(0, 1, (9, 4)).astype(F)
    found, expected = (run(m, {"x": x})["y"] for m in (result, graph.proto))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("op", "constant", "shape"),
    [
        ("Add", "left", (6, 1, 1)),
        ("Add", "right", (1, 6, 1, 1)),
        ("Mul", "right", (6, 1, 1)),
        ("Mul", "left", (1,)),
        ("Add", "right", ()),
    ],
)
def test_constants_by_channel_go_too(build, run, op, constant, shape):
    layer, of = CONVOLUTIONS["conv with bias"]
    inputs = ["c", "h"] if constant == "left" else ["h", "c"]
    held = {**BIAS, **weight(of), "c": RNG.normal(0, 1, shape).astype(F)}
    graph = build([layer, (op, inputs, ["k"]), ("Relu", ["k"], ["y"])], held, IMAGE)
    result = folded(graph)
    assert operators(result) == ["Conv", "Relu"]
    found, expected = (run(m, {"x": X})["y"] for m in (result, graph.proto))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(3,), (3, 3), (6, 3, 3), (2, 1, 1, 1), (1, 1, 6, 1, 1)])
def test_constants_that_vary_elsewhere_stay(build, shape):
    layer, of = CONVOLUTIONS["conv"]
    held = {**weight(of), "c": np.ones(shape, F)}
    inputs = {"x": [2, 4, 5, 5]}
    assert operators(folded(build([layer, ("Mul", ["h", "c"], ["y"])], held, inputs))) == [
        "Conv",
        "Mul",
    ]


def test_a_chain_is_folded_and_a_shared_weight_kept(build, run):
    layer, shape = CONVOLUTIONS["conv"]
    graph = build(
        [
            layer,
            (*BATCH_NORM[:2], ["k"]),
            ("Mul", ["k", "c"], ["m"]),
            ("Conv", ["x", "w"], ["o"]),  # shares its weight with the layer that is folded
            ("Add", ["m", "o"], ["y"]),
        ],
        {**NORM, **weight(shape), "c": np.full((6, 1, 1), 2, F)},
        IMAGE,
    )
    result = folded(graph)
    assert operators(result) == ["Conv", "Conv", "Add"]
    found, expected = (run(m, {"x": X})["y"] for m in (result, graph.proto))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_what_somebody_else_reads_stays(build):
    layer, shape = CONVOLUTIONS["conv"]
    graph = build(
        [layer, (*BATCH_NORM[:2], ["k"]), ("Add", ["k", "h"], ["y"])],
        {**NORM, **weight(shape)},
        IMAGE,
    )
    assert operators(folded(graph)) == ["Conv", "BatchNormalization", "Add"]


def test_computed_parameters_stay(build):
    graph = build(
        [
            ("Abs", ["w0"], ["w"]),
            CONVOLUTIONS["conv"][0],
            BATCH_NORM,
        ],
        {**NORM, "w0": weight((6, 4, 3, 3))["w"]},
        IMAGE,
    )
    assert operators(folded(graph)) == ["Abs", "Conv", "BatchNormalization"]
