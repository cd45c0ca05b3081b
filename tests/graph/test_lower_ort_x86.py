import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto

from fettle.core.errors import ModelError
from fettle.core.machine import Machine
from fettle.core.shelf import PASSES
from fettle.graph._quantized import activation_quantizers

F = np.float32
SCALE = np.array(0.037, F)
ZERO = np.array(0, np.int8)
HELD = {"s": SCALE, "z": ZERO}
# Past both ends of int8, and every tie and step between.
X = (np.arange(-600, 600, dtype=F) * SCALE / 4).reshape(-1, 4)


def lowered(graph):
    return PASSES.make("graph.lower_ort_x86")(graph.ir)


def pair(build, source="x", before=()):
    return build(
        [*before, ("QuantizeLinear", [source, "s", "z"], ["q"]),
         ("DequantizeLinear", ["q", "s", "z"], ["y"])],
        HELD,
    )  # fmt: skip


def zero_points(model):
    kinds = ("QuantizeLinear", "DequantizeLinear")
    return [n.inputs[2].const_value.numpy() for n in model.graph if n.op_type in kinds]


def test_a_signed_tensor_is_lowered_exactly(build, run):
    graph = pair(build)
    result = lowered(graph)
    assert [(z.dtype, int(z)) for z in zero_points(result)] == [(np.dtype(np.uint8), 128)] * 2
    np.testing.assert_array_equal(run(result, {"x": X})["y"], run(graph.proto, {"x": X})["y"])


def test_a_non_negative_tensor_gets_the_whole_range(build, run):
    graph = pair(build, "r", [("Relu", ["x"], ["r"])])
    result = lowered(graph)
    assert [(z.dtype, int(z)) for z in zero_points(result)] == [(np.dtype(np.uint8), 0)] * 2
    quantize = next(n for n in result.graph if n.op_type == "QuantizeLinear")
    scale = quantize.inputs[1].const_value.numpy()
    assert scale * 255 == pytest.approx(SCALE * 127, rel=1e-6)  # the same largest value
    inside = np.clip(X, 0, 127 * SCALE)
    errors = [np.abs(run(m, {"x": X})["y"] - inside).max() for m in (graph.proto, result)]
    assert errors[0] == pytest.approx(SCALE / 2, rel=1e-3)
    assert errors[1] <= scale / 2 * 1.001
    assert errors[1] < 0.51 * errors[0]  # one bit more of resolution


def test_every_reader_is_rewritten(build, run):
    graph = build(
        [
            ("QuantizeLinear", ["x", "s", "z"], ["q"]),
            ("DequantizeLinear", ["q", "s", "z"], ["a"]),
            ("DequantizeLinear", ["q", "s2", "z2"], ["b"]),  # the same numbers by another name
            ("Sub", ["a", "b"], ["y"]),
        ],
        {**HELD, "s2": SCALE, "z2": ZERO},
    )
    result = lowered(graph)
    assert {int(z) for z in zero_points(result)} == {128}
    assert not run(result, {"x": X})["y"].any()


@pytest.mark.parametrize(
    ("last", "kind"),
    [
        (("DequantizeLinear", ["q", "double", "z"], ["y"]), TensorProto.FLOAT),
        (("DequantizeLinear", ["q", "s", "one"], ["y"]), TensorProto.FLOAT),
        (("Identity", ["q"], ["y"]), TensorProto.INT8),
        (("Cast", ["q"], ["y"], {"to": TensorProto.FLOAT}), TensorProto.FLOAT),
    ],
    ids=["other scale", "other zero point", "output", "other reader"],
)
def test_what_reads_the_integers_otherwise_is_left_alone(build, last, kind):
    graph = build(
        [("QuantizeLinear", ["x", "s", "z"], ["q"]), last],
        {**HELD, "double": SCALE * 2, "one": np.array(1, np.int8)},
        outputs={"y": kind},
    )
    with pytest.raises(ModelError, match="has none"):
        lowered(graph)


@pytest.mark.parametrize(
    "held",
    [
        {"s": SCALE, "z": np.array(3, np.int8)},
        {"s": SCALE, "z": np.array(0, np.uint8)},
        {"s": np.full(4, SCALE, F), "z": np.zeros(4, np.int8)},
    ],
    ids=["asymmetric", "uint8", "by channel"],
)
def test_other_quantizers_are_left_alone(build, held):
    nodes = [
        ("QuantizeLinear", ["x", "s", "z"], ["q"], {"axis": 1}),
        ("DequantizeLinear", ["q", "s", "z"], ["y"], {"axis": 1}),
    ]
    assert list(activation_quantizers(build(nodes, held).ir.graph)) == []


def test_a_second_lowering_is_refused(build):
    with pytest.raises(ModelError, match="has none"):
        PASSES.make("graph.lower_ort_x86")(lowered(pair(build)))


def gemms(build, transposed=1, bias=(4,), axis=0, weight=(4, 4)):
    """Two quantized linear layers in a row, whose nodes have no names."""
    rng = np.random.default_rng(0)
    nodes, held, last = [], dict(HELD), "x"
    for i in "ab":
        nodes += [
            ("QuantizeLinear", [last, "s", "z"], [f"q{i}"]),
            ("DequantizeLinear", [f"q{i}", "s", "z"], [f"d{i}"]),
            ("DequantizeLinear", [f"w{i}", f"t{i}", f"u{i}"], [f"e{i}"], {"axis": axis}),
            ("Gemm", [f"d{i}", f"e{i}", f"b{i}"], [f"y{i}"], {"transB": transposed}),
        ]
        held |= {
            f"w{i}": rng.integers(-127, 128, weight).astype(np.int8),
            f"t{i}": rng.uniform(0.001, 0.01, weight[axis]).astype(F),
            f"u{i}": np.zeros(weight[axis], np.int8),
            f"b{i}": rng.normal(0, 0.5, bias).astype(F),
        }
        last = f"y{i}"
    return build(nodes, held)


def test_the_bias_of_a_gemm_becomes_int32(build, run):
    graph = gemms(build)
    result = lowered(graph)
    onnx.checker.check_model(ir.to_proto(result), full_check=True)
    makers = [n.inputs[2].producer() for n in result.graph if n.op_type == "Gemm"]
    assert [m.op_type for m in makers] == ["DequantizeLinear"] * 2
    assert {m.inputs[0].const_value.numpy().dtype for m in makers} == {np.dtype(np.int32)}
    held = {t.name: onnx.numpy_helper.to_array(t) for t in graph.proto.graph.initializer}
    product = np.float32(SCALE) * held["ta"]  # the first tensor is signed: its scale is kept
    numbers, scale = (makers[0].inputs[i].const_value.numpy() for i in (0, 1))
    np.testing.assert_array_equal(scale, product)
    np.testing.assert_array_equal(numbers, np.rint(held["ba"] / product))
    x = np.random.default_rng(1).normal(0, 2, (64, 4)).astype(F)
    found, expected = (run(m, {"x": x})["yb"] for m in (result, graph.proto))
    # the bias moved by half a step at most, and a tie behind it by one step of the next tensor
    assert np.abs(found - expected).max() <= product.max() + SCALE * 127 * held["tb"].max()
    assert np.abs(found - expected).mean() < 1e-3


@pytest.mark.parametrize(
    ("transposed", "bias", "axis", "weight"),
    [
        (1, (1,), 0, (4, 4)),  # one bias for all outputs
        (0, (4,), 1, (4, 4)),
        (1, (1, 4), 0, (4, 4)),
    ],
)
def test_other_shapes_of_a_gemm_are_kept_right(build, run, transposed, bias, axis, weight):
    graph = gemms(build, transposed, bias, axis, weight)
    result = lowered(graph)
    onnx.checker.check_model(ir.to_proto(result), full_check=True)
    found, expected = (run(m, {"x": X})["yb"] for m in (result, graph.proto))
    assert np.abs(found - expected).mean() < 1e-2


@pytest.mark.parametrize(
    ("arch", "isa", "expected"),
    [
        ("x86_64", ("avx512_vnni",), True),
        ("x86_64", ("avx2",), False),  # its 16-bit sums saturate
        ("aarch64", ("arm_dotprod",), False),
    ],
)
def test_it_suits_x86_with_vnni(arch, isa, expected):
    assert PASSES.load("graph.lower_ort_x86").suits(Machine("cpu", arch, isa, 1)) is expected
