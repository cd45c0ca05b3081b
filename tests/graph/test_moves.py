import numpy as np
import pytest

from fettle.graph._moves import move_integers

F = np.float32
HELD = {
    "s": np.array(0.037, F),
    "z": np.array(0, np.int8),
    "other": np.array(0.05, F),
    "pads": np.array([0, 1, 0, 2], np.int64),
    "indices": np.array([3, 0, 0], np.int64),
    "starts": np.array([1], np.int64),
    "ends": np.array([3], np.int64),
    "axes": np.array([1], np.int64),
    "shape": np.array([-1, 2], np.int64),
    "nought": np.array(0, F),
    "one": np.array(1, F),
}
X = (np.arange(-150, 150, dtype=F) * HELD["s"]).reshape(-1, 4)
MOVES = {
    "Pad": ("Pad", ["a", "pads"], ["m"]),
    "Pad with a fill": ("Pad", ["a", "pads", "nought"], ["m"]),
    "Slice": ("Slice", ["a", "starts", "ends", "axes"], ["m"]),
    "Gather": ("Gather", ["a", "indices"], ["m"]),
    "Reshape": ("Reshape", ["a", "shape"], ["m"]),
    "Transpose": ("Transpose", ["a"], ["m"]),
}


def framed(build, move, scale="s", after=()):
    nodes = [
        ("QuantizeLinear", ["x", "s", "z"], ["q"]),
        ("DequantizeLinear", ["q", "s", "z"], ["a"]),
        move,
        ("QuantizeLinear", ["m", scale, "z"], ["r"]),
        ("DequantizeLinear", ["r", scale, "z"], ["y"]),
        *after,
    ]
    read = {name for node in nodes for name in node[1]}
    return build(nodes, {name: array for name, array in HELD.items() if name in read})


@pytest.mark.parametrize("name", MOVES)
def test_a_move_on_integers_gives_the_very_same_numbers(build, run, name):
    graph = framed(build, MOVES[name])
    expected = run(graph.proto, {"x": X})["y"]
    model = graph.ir
    assert move_integers(model.graph) == 1
    operators = [node.op_type for node in model.graph]
    assert operators == ["QuantizeLinear", MOVES[name][0], "DequantizeLinear"]
    np.testing.assert_array_equal(run(model, {"x": X})["y"], expected)


@pytest.mark.parametrize(
    ("move", "scale"),
    [
        (MOVES["Slice"], "other"),  # what comes out has another scale: not the same integers
        (("Pad", ["a", "pads", "one"], ["m"]), "s"),  # fills with something that isn't zero
        (("Relu", ["a"], ["m"]), "s"),  # computes
    ],
)
def test_what_would_change_numbers_is_left_alone(build, move, scale):
    model = framed(build, move, scale).ir
    before = [node.op_type for node in model.graph]
    assert move_integers(model.graph) == 0
    assert [node.op_type for node in model.graph] == before


def test_a_float_reader_keeps_the_float_move(build):
    graph = framed(build, MOVES["Transpose"], after=[("Add", ["y", "m"], ["sum"])])
    assert move_integers(graph.ir.graph) == 0
