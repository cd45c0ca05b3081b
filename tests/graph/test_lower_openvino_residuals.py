import numpy as np
import pytest

from fettle.core.errors import ModelError
from fettle.core.shelf import PASSES

F = np.float32
RNG = np.random.default_rng(0)
X = RNG.normal(0, 1, (8, 4)).astype(F)
HELD = {"s": F(0.3), "z": np.array(0, np.int8), "g": RNG.uniform(0.5, 2, 4).astype(F),
        "o": RNG.normal(0, 1, 4).astype(F)}  # fmt: skip


def lowered(graph):
    return PASSES.make("graph.lower_openvino_residuals")(graph.ir)


def residual(build, maker, term):
    """What `maker` makes is quantized, and added to another tensor."""
    return build(
        [maker, ("QuantizeLinear", ["m", "s", "z"], ["q"]),
         ("DequantizeLinear", ["q", "s", "z"], ["a"]),
         ("QuantizeLinear", ["x", "s", "z"], ["p"]), ("DequantizeLinear", ["p", "s", "z"], ["b"]),
         ("Softplus", ["a"], ["t"]), ("Add", ["a", term], ["y"])],
        HELD,
    )  # fmt: skip


def norm(x):
    x = x.astype(float)
    centred = x - x.mean(1, keepdims=True)
    return centred / np.sqrt(centred.var(1, keepdims=True) + 1e-5) * HELD["g"] + HELD["o"]


def test_a_residual_around_a_layer_is_not_rounded(build, run):
    graph = residual(build, ("LayerNormalization", ["x", "g", "o"], ["m"]), "t")
    exact = norm(X)
    rounded = np.clip(np.rint(exact / F(0.3)), -128, 127) * float(F(0.3))
    found = run(lowered(graph), {"x": X})["y"]
    np.testing.assert_allclose(found, exact + np.log1p(np.exp(rounded)), atol=1e-4)
    assert np.abs(found - run(graph.proto, {"x": X})["y"]).max() > 0.01


@pytest.mark.parametrize(
    ("maker", "term"),
    [(("LayerNormalization", ["x", "g", "o"], ["m"]), "b"), (("Relu", ["x"], ["m"]), "t")],
    ids=["a sum of integers", "no layer norm"],
)
def test_other_sums_are_left_alone(build, run, maker, term):
    graph = residual(build, maker, term)
    found, expected = (run(model, {"x": X})["y"] for model in (lowered(graph), graph.proto))
    np.testing.assert_array_equal(found, expected)


def test_a_float_model_is_refused(build):
    with pytest.raises(ModelError, match="quantize it first"):
        lowered(build([("Relu", ["x"], ["y"])]))
