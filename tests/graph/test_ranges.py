import numpy as np
import pytest
from onnx import TensorProto

from fettle.graph._ranges import non_negative_values

F = np.float32
PLUS, MINUS, ZERO = np.array(0.5, F), np.array(-0.5, F), np.array(0, F)
SHAPE = np.array([-1, 4], np.int64)


def found(graph):
    return {value.name for value in non_negative_values(graph.ir.graph)}


@pytest.mark.parametrize(
    "op", ["Relu", "Sigmoid", "HardSigmoid", "Softmax", "Softplus", "Abs", "Exp", "Sqrt"]
)
def test_always(build, run, op):
    graph = build([(op, ["x"], ["y"])])
    assert found(graph) == {"y"}
    x = np.linspace(-9, 9, 40, dtype=F).reshape(10, 4)
    y = run(graph.proto, {"x": x})["y"]
    assert not (y < 0).any()


@pytest.mark.parametrize(
    "op", ["Neg", "Tanh", "HardSwish", "LeakyRelu", "Elu", "Log", "Cos", "Erf"]
)
def test_what_may_be_negative_is_not_found(build, op):
    assert found(build([("Relu", ["x"], ["r"]), (op, ["r"], ["y"])])) == {"r"}


@pytest.mark.parametrize(
    ("low", "of", "expected"),
    [
        ("plus", "x", True),
        ("zero", "x", True),
        ("minus", "x", False),
        ("minus", "r", True),
        ("", "x", False),
        ("", "r", True),
    ],
)
def test_clip_by_its_minimum_or_its_input(build, low, of, expected):
    graph = build(
        [("Relu", ["x"], ["r"]), ("Clip", [of, low, "six"], ["y"]), ("Identity", ["r"], ["z"])],
        {"plus": PLUS, "minus": MINUS, "zero": ZERO, "six": np.array(6, F)},
        outputs={"y": TensorProto.FLOAT, "z": TensorProto.FLOAT},
    )
    assert ("y" in found(graph)) is expected


FIRST = [
    ("Reshape", ["{}", "shape"]),
    ("Flatten", ["{}"]),
    ("Transpose", ["{}"]),
    ("Unsqueeze", ["{}", "axes"]),
    ("Slice", ["{}", "axes", "axes"]),
    ("Gather", ["{}", "axes"]),
    ("Identity", ["{}"]),
    ("Dropout", ["{}"]),
    ("ReduceMean", ["{}"]),
    ("ReduceMax", ["{}"]),
]


@pytest.mark.parametrize("of", ["x", "r"])
@pytest.mark.parametrize(("op", "inputs"), FIRST, ids=[op for op, _ in FIRST])
def test_movers_keep_what_goes_in(build, op, inputs, of):
    graph = build(
        [("Relu", ["x"], ["r"]), (op, [i.format(of) for i in inputs], ["y"])],
        {"shape": SHAPE, "axes": np.array([0], np.int64)},
    )
    assert ("y" in found(graph)) is (of == "r")


@pytest.mark.parametrize("of", ["x", "r"])
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"])
def test_pools_keep_what_goes_in(build, op, of):
    window = {"kernel_shape": [2, 2]} if "Global" not in op else {}
    nodes = [("Relu", ["x"], ["r"]), (op, [of], ["y"], window)]
    graph = build(nodes, inputs={"x": ["n", 1, 4, 4]})
    assert ("y" in found(graph)) is (of == "r")


@pytest.mark.parametrize(
    ("inputs", "mode", "expected"),
    [
        (["r", "pads"], "constant", True),  # filled with zero
        (["x", "pads"], "constant", False),
        (["r", "pads", "plus"], "constant", True),
        (["r", "pads", "minus"], "constant", False),
        (["r", "pads"], "reflect", True),
    ],
)
def test_padding_by_its_fill(build, inputs, mode, expected):
    graph = build(
        [
            ("Relu", ["x"], ["r"]),
            ("Pad", inputs, ["y"], {"mode": mode}),
            ("Identity", ["r"], ["z"]),
        ],
        {"pads": np.array([0, 1, 0, 1], np.int64), "plus": PLUS, "minus": MINUS},
        outputs={"y": TensorProto.FLOAT, "z": TensorProto.FLOAT},
    )
    assert ("y" in found(graph)) is expected


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (["r", "r"], True),
        (["r", "x"], False),
        (["x", "r"], False),
        (["r", "plus"], True),
        (["r", "minus"], False),
    ],
)
@pytest.mark.parametrize("op", ["Add", "Mul", "Max", "Sum", "Concat"])
def test_combiners_need_all(build, op, inputs, expected):
    constants = {"plus": np.full((1, 4), 0.5, F), "minus": np.full((1, 4), -0.5, F)}
    attributes = {"axis": 0} if op == "Concat" else {}
    graph = build([("Relu", ["x"], ["r"]), (op, inputs, ["y"], attributes)], constants)
    assert ("y" in found(graph)) is expected


@pytest.mark.parametrize("op", ["Sub", "Div", "Min", "Pow"])
def test_other_combiners_are_not_trusted(build, op):
    graph = build([("Relu", ["x"], ["r"]), (op, ["r", "r"], ["y"])])
    assert found(graph) == {"r"}


@pytest.mark.parametrize(
    ("constant", "zero", "expected"),
    [
        (np.array([1, 2, 0, 5], np.int8), 0, True),
        (np.array([1, -2, 0, 5], np.int8), 0, False),
        (np.array([200, 3, 0, 5], np.uint8), 128, False),  # uint8, but below its zero point
        (np.array([200, 128, 255, 129], np.uint8), 128, True),
    ],
)
def test_a_dequantized_constant_counts_from_its_zero_point(build, run, constant, zero, expected):
    graph = build(
        [
            ("DequantizeLinear", ["c", "s", "z"], ["d"]),
            ("Relu", ["x"], ["r"]),
            ("Add", ["r", "d"], ["y"]),
        ],
        {"c": constant, "s": PLUS, "z": np.array(zero, constant.dtype)},
    )
    assert ("y" in found(graph)) is expected
    y = run(graph.proto, {"x": np.full((1, 4), -1, F)})["y"]
    assert (y >= 0).all() == expected


@pytest.mark.parametrize("zero", [0, -20])
@pytest.mark.parametrize("of", ["x", "r"])
def test_quantized_tensors_are_as_their_source(build, of, zero):
    graph = build(
        [
            ("Relu", ["x"], ["r"]),
            ("QuantizeLinear", [of, "s", "z"], ["q"]),
            ("DequantizeLinear", ["q", "s", "z"], ["y"]),
        ],
        {"s": PLUS, "z": np.array(zero, np.int8)},
    )
    assert ("y" in found(graph)) is (of == "r")
