import numpy as np
import pytest

from fettle.core.arrays import TensorSpec
from fettle.core.errors import ModelError
from fettle.core.machine import Machine
from fettle.core.shelf import RUNTIMES
from fettle.measure import lowering
from fettle.measure.lowering import MOST_DIFFERENCE, MOST_FLIPS, Limits, candidates, limits_of
from fettle.testing.fakes import FakeSession

X = {"x": np.random.default_rng(0).standard_normal((32, 4)).astype(np.float32)}
WEIGHT = np.random.default_rng(1).standard_normal((4, 3)).astype(np.float32)


def session(function):
    inputs = (TensorSpec("x", "float32", (-1, 4)),)
    return FakeSession(
        lambda arrays: {"y": function(arrays["x"])}, inputs, (TensorSpec("y", "float32", (-1, 3)),)
    )


def smooth(x):
    return x @ WEIGHT


def steep(x):
    """Like a network whose quantization error is as large as its signal."""
    return np.sin(200 * (x @ WEIGHT))


def test_a_steady_model_gets_the_usual_limits():
    limits = limits_of(session(smooth), X, {"y": smooth(X["x"])})
    assert limits.mean_difference == MOST_DIFFERENCE
    assert MOST_FLIPS < limits.flips <= MOST_FLIPS + 2 * 2 / 32 + 1 / 32


def test_a_model_that_shakes_at_half_a_step_gets_wider_ones():
    limits = limits_of(session(steep), X, {"y": steep(X["x"])})
    assert limits.mean_difference > 2 * MOST_DIFFERENCE
    assert limits.flips > 2 * MOST_FLIPS


def test_whole_numbers_are_not_moved():
    ids = {"x": np.arange(32 * 4).reshape(32, 4)}
    limits = limits_of(session(steep), ids, {"y": steep(ids["x"])})
    assert limits == Limits(MOST_DIFFERENCE, MOST_FLIPS + 1 / 32)


@pytest.mark.parametrize(
    "broken",
    [
        lambda x: smooth(x)[:, ::-1],  # channels swapped
        lambda x: 0.5 * smooth(x),  # a scale forgotten: the same top-1
        lambda x: np.minimum(smooth(x), 0.2),  # saturated
    ],
)
def test_a_rewrite_that_computes_something_else_is_refused(broken):
    tried = lowering._compare("graph.broken", session(smooth), session(broken), X)
    assert not tried.accepted
    assert "computes something else" in tried.reason


def test_only_passes_for_the_engine_and_the_processor_are_tried(monkeypatch):
    def on(isa, arch="x86_64"):
        monkeypatch.setattr(lowering, "this_machine", lambda: Machine("a", arch, isa, 2))

    on(("avx2", "avx512_vnni"))
    parts = ("norms", "operators", "products", "stems", "widths")
    everywhere = [f"graph.lower_ort_x86_{name}" for name in parts]
    found = candidates(RUNTIMES.make("onnxruntime"))
    assert [name for name in found if "x86" in name] == ["graph.lower_ort_x86", *everywhere]
    assert not [name for name in candidates(RUNTIMES.make("openvino")) if "ort" in name]
    on(("avx2",))
    found = candidates(RUNTIMES.make("onnxruntime"))
    assert [name for name in found if "x86" in name] == ["graph.lower_ort_x86_7bit", *everywhere]
    on(("arm_dotprod",), "aarch64")
    assert not [name for name in candidates(RUNTIMES.make("onnxruntime")) if "x86" in name]


def test_a_pass_that_changes_nothing_is_not_timed(tmp_path):
    from onnx import TensorProto, helper, numpy_helper, save

    held = {"s": np.float32(0.1), "z": np.array(0, np.int8), "w": WEIGHT}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["a"]),
        helper.make_node("MatMul", ["a", "w"], ["y"]),
    ]
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width])]
            for name, width in (("x", 4), ("y", 3))]  # fmt: skip
    constants = [numpy_helper.from_array(np.asarray(v), k) for k, v in held.items()]
    graph = helper.make_graph(nodes, "g", *ends, constants)
    opsets = [helper.make_opsetid("", 20)]
    save(helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "m.onnx")
    tried = lowering._try(
        tmp_path / "m.onnx", RUNTIMES.make("onnxruntime"), X, (), ("graph.lower_ort_x86_norms",)
    )
    assert not tried.accepted
    assert tried.reason == "finds nothing to rewrite"


@pytest.mark.parametrize(("strays", "expected"), [((), ("first", "second")), (("first",), ())])
def test_passes_that_pay_only_together_are_tried_together(monkeypatch, strays, expected):
    """`first` gains nothing, `second` needs it: the choice alone is tested, no engine asked."""

    def content(model, steps):
        if "second" in steps and "first" not in steps:
            raise ModelError("`second` builds on `first`")
        return repr(steps).encode()

    def attempt(model, runtime, inputs, before, after):
        name = " + ".join(step for step in after if step not in before)
        return lowering.Trial(name, name == "first + second", "", strayed=name in strays)

    monkeypatch.setattr(lowering, "candidates", lambda runtime: ["first", "second"])
    monkeypatch.setattr(lowering, "_content", content)
    monkeypatch.setattr(lowering, "_try", attempt)
    monkeypatch.setattr(lowering, "_suspected", lambda *_: [])
    chosen, trials = lowering.choose_lowering("model", "runtime", X)
    assert chosen == expected
    assert [trial.name for trial in trials][:2] == ["first", "second"]
