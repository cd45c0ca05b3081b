import numpy as np
import onnx
import onnx_ir as ir

from fettle.core.machine import Machine
from fettle.core.shelf import PASSES

F = np.float32
RNG = np.random.default_rng(0)
X = RNG.normal(0.5, 1, (5, 48)).astype(F)


def weight(*shape):
    return RNG.normal(0, 0.1, shape).astype(F)


def dynamic(build, nodes, **constants):
    graph = build(nodes, constants, {"x": ["n", 48]})
    return PASSES.make("graph.dynamic_int8")(graph.ir)


def attention(build):
    """Two products of x, one with a bias, and a third of their product."""
    return dynamic(
        build,
        [("MatMul", ["x", "q"], ["a"]), ("MatMul", ["x", "k"], ["b"]), ("Add", ["b", "o"], ["c"]),
         ("Mul", ["a", "c"], ["d"]), ("MatMul", ["d", "v"], ["y"])],
        q=weight(48, 48), k=weight(48, 48), v=weight(48, 20), o=weight(48),
    )  # fmt: skip


def lowered(model):
    result = PASSES.make("graph.lower_ort_x86_dynamic")(model)
    onnx.checker.check_model(ir.to_proto(result), full_check=True)
    return result


def test_what_two_products_read_is_quantized_once_and_no_bit_changes(build, run):
    model = attention(build)
    before = run(model, {"x": X})["y"]
    result = lowered(model)
    assert [node.op_type for node in result.graph] == [
        *("DynamicQuantizeLinear", "MatMulIntegerToFloat", "MatMulIntegerToFloat"),
        *("Mul", "DynamicQuantizeMatMul"),
    ]
    np.testing.assert_array_equal(run(result, {"x": X})["y"], before)


def test_products_of_the_same_weight_and_of_an_earlier_node(build, run):
    model = dynamic(
        build,
        [("Relu", ["x"], ["r"]), ("MatMul", ["r", "w"], ["a"]), ("Neg", ["a"], ["b"]),
         ("MatMul", ["r", "w"], ["c"]), ("Add", ["b", "c"], ["y"])],
        w=weight(48, 24),
    )  # fmt: skip
    result = lowered(model)
    assert [node.op_type for node in result.graph][:3] == [
        *("Relu", "DynamicQuantizeLinear", "MatMulIntegerToFloat"),
    ]
    np.testing.assert_array_equal(run(result, {"x": X})["y"], np.zeros((5, 24), F))


def test_one_product_alone_is_kept(build):
    model = dynamic(build, [("MatMul", ["x", "w"], ["y"])], w=weight(48, 24))
    assert [node.op_type for node in lowered(model).graph] == ["DynamicQuantizeMatMul"]


def test_it_suits_any_x86():
    cls = PASSES.load("graph.lower_ort_x86_dynamic")
    assert cls.suits(Machine("cpu", "x86_64", (), 1))
    assert not cls.suits(Machine("cpu", "aarch64", (), 1))
