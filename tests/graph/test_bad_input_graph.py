"""What is wrong with data or files, tried on every pass that compresses or prepares.

Each cell raises a FettleError that says what came, or computes what the file computes, within what
rounding explains.
"""

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from fettle.core.arrays import Batch
from fettle.core.context import Context
from fettle.core.errors import DataError, InputError, ModelError
from fettle.core.recipe import Recipe
from fettle.testing import Recorder

F = np.float32
# The largest mean difference from the file, relative to its mean output.
PASSES = {
    "graph.static_int8": 0.03,
    "graph.static_int8(correct='full', rounding='adaptive', activations='asymmetric')": 0.03,
    "graph.dynamic_int8": 0.02,
    "graph.weight_only": 0.02,
    "graph.weight_only(bits=4)": 0.2,
    "graph.float16": 2e-3,
    "graph.equalize": 1e-5,
    "graph.smooth": 1e-5,
    "graph.fold_batch_norm": 1e-5,
}
CALIBRATED = tuple(PASSES)[:2]
EXACT = ("graph.equalize", "graph.smooth", "graph.fold_batch_norm")


class Inputs:
    """A task that has calibration inputs and nothing else."""

    def __init__(self, **inputs):
        self.inputs = inputs

    def size(self, split):
        return len(next(iter(self.inputs.values())))

    def batches(self, split, batch_size):
        for start in range(0, self.size(split), batch_size):
            part = {k: v[start : start + batch_size] for k, v in self.inputs.items()}
            yield Batch(part, np.zeros(len(next(iter(part.values())))))


def normal(*shape, scale=1.0, seed=0):
    return np.random.default_rng(seed).normal(0, scale, shape).astype(F)


def rewritten(name, proto, inputs, progress=None):
    (step,) = Recipe.parse(name).steps
    task = Inputs(**inputs) if isinstance(inputs, dict) else Inputs(x=inputs)
    return step.but(context=Context(progress=progress or Recorder()))(ir.from_proto(proto), task)


def model(nodes, held, x=("n", 3, 8, 8), kind=TensorProto.FLOAT, domains=(), functions=(), y="y"):
    """Return a model from `x` to `y`."""
    made = [helper.make_node(n[0], n[1], n[2], **(n[3] if len(n) > 3 else {})) for n in nodes]
    first = helper.make_tensor_value_info("x", kind, x)
    last = helper.make_tensor_value_info(
        y, TensorProto.FLOAT if kind == TensorProto.INT64 else kind, ["n", "c"]
    )
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in held.items()]
    opsets = [helper.make_opsetid("", 20), *(helper.make_opsetid(d, 1) for d in domains)]
    graph = helper.make_graph(made, "g", [first], [last], tensors)
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    proto.functions.extend(functions)
    return proto


HELD = {
    "w": normal(8, 3, 3, 3, scale=0.3), "b": normal(8), "v": normal(8, 8, 3, 3, scale=0.2, seed=1),
    "m": normal(8, 64, scale=0.3, seed=2), "k": normal(64, 64, scale=0.2, seed=3),
}  # fmt: skip
BODY = [
    ("Conv", ["x", "w", "b"], ["c"]),
    ("Relu", ["c"], ["r"]),
    ("Conv", ["r", "v"], ["d"]),
    ("Relu", ["d"], ["e"]),
    ("GlobalAveragePool", ["e"], ["p"]),
    ("Flatten", ["p"], ["f"]),
    ("MatMul", ["f", "m"], ["h"]),
]
X = normal(16, 3, 8, 8)


def net(held=HELD, end=(("MatMul", ["h", "k"], ["y"]),), **options):
    return model([*BODY, *end], held, **options)


def with_first(array, value):
    changed = array.copy()
    changed.flat[0] = value
    return changed


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("name", CALIBRATED)
def test_calibration_data_that_is_no_numbers(name, value):
    with pytest.raises(DataError, match="`x` holds NaN or infinity"):
        rewritten(name, net(), with_first(X, value))


@pytest.mark.parametrize("key", ["w", "b", "k"])
@pytest.mark.parametrize("name", PASSES)
def test_a_constant_that_is_no_number(name, key):
    """Integers have no NaN: a pass would make a number of it."""
    with pytest.raises(ModelError, match=f"`{key}` holds NaN"):
        rewritten(name, net({**HELD, key: with_first(HELD[key], np.nan)}), X)


@pytest.mark.parametrize("key", ["w", "b", "k"])
@pytest.mark.parametrize("name", PASSES)
def test_an_infinite_weight(name, key):
    with pytest.raises(ModelError, match=f"`{key}` holds infinity"):
        rewritten(name, net({**HELD, key: with_first(HELD[key], -np.inf)}), X)


@pytest.mark.parametrize("name", PASSES)
def test_infinity_in_a_mask_is_meant(run, name):
    """As in attention: infinite logits lose in a softmax."""
    mask = np.where(np.arange(64) % 3, 0, -np.inf).astype(F)
    end = [("Add", ["h", "mask"], ["a"]), ("Softmax", ["a"], ["s"]), ("MatMul", ["s", "k"], ["y"])]
    proto = net({**HELD, "mask": mask}, end)
    same(run, name, rewritten(name, proto, X), proto, X)


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (X[:0], "holds no batch"),
        (X[:, :2], "index: 1 Got: 2 Expected: 3"),
        (X[..., 0], "Got: 3 Expected: 4"),
        (X.astype(np.float64), "double"),
        (X.astype(np.int64), "int64"),
        ({"a": X, "b": X}, r"\['x'\], and the data brings \['a', 'b'\]"),
    ],
    ids=["none", "channels", "rank", "float64", "int64", "names"],
)
@pytest.mark.parametrize("name", CALIBRATED)
def test_calibration_data_that_does_not_fit(name, x, says):
    with pytest.raises(InputError, match=says):
        rewritten(name, net(), x)


@pytest.mark.parametrize("value", [0, 5])
@pytest.mark.parametrize("name", CALIBRATED)
def test_constant_calibration_data_is_told(run, name, value):
    told, x = Recorder(), np.full_like(X, value)
    found = rewritten(name, net(), x, told)
    assert any(f"`x` is {value} throughout" in line for line in told.lines)
    same(run, name, found, net(), x)


def same(run, name, found, proto, x):
    inputs = x if isinstance(x, dict) else {"x": x}
    (mine,), (theirs,) = (run(m, inputs).values() for m in (found, proto))
    assert np.isfinite(mine).all()
    assert np.abs(mine - theirs).mean() <= PASSES[name] * np.abs(theirs).mean()


@pytest.mark.parametrize("name", PASSES)
def test_one_example_is_enough(run, name):
    same(run, name, rewritten(name, net(), X[:1]), net(), X[:1])


def branch(name, weight, *more):
    nodes = [helper.make_node("MatMul", ["h", weight], [f"{name}_m"]), *more]
    value = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)
    own = {"own": normal(64, 64, scale=0.2, seed=9)} if weight == "own" else {}
    tensors = [numpy_helper.from_array(array, key) for key, array in own.items()]
    return helper.make_graph(nodes, name, [], [value], tensors)


def chosen():
    """An If whose branches have a weight of their own, and one from outside."""
    branches = {
        "then_branch": branch("t", "k"),
        "else_branch": branch("e", "own", helper.make_node("Neg", ["e_m"], ["e_y"])),
    }
    nodes = [
        ("ReduceMean", ["h"], ["mean"], {"keepdims": 0}),
        ("Less", ["mean", "zero"], ["less"]),
        ("If", ["less"], ["y"], branches),
    ]
    return net({**HELD, "zero": np.array(0, F)}, nodes)


def looped():
    """Three rounds of y = tanh(y · k), k from outside."""
    nodes = [
        helper.make_node("MatMul", ["s", "k"], ["m1"]),
        helper.make_node("Tanh", ["m1"], ["s1"]),
        helper.make_node("Identity", ["go"], ["go1"]),
    ]
    kinds = {"i": TensorProto.INT64, "go": TensorProto.BOOL, "s": TensorProto.FLOAT}
    before = [
        helper.make_tensor_value_info(n, k, None if n == "s" else []) for n, k in kinds.items()
    ]
    after = [
        helper.make_tensor_value_info("go1", TensorProto.BOOL, []),
        helper.make_tensor_value_info("s1", TensorProto.FLOAT, None),
    ]
    held = {**HELD, "three": np.array(3), "true": np.array(True)}
    body = helper.make_graph(nodes, "body", before, after)
    return net(held, [("Loop", ["three", "true", "h"], ["y"], {"body": body})])


def function():
    made = helper.make_function(
        "own", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", 20)],
    )  # fmt: skip
    end = [("Twice", ["h"], ["hh"], {"domain": "own"}), ("MatMul", ["hh", "k"], ["y"])]
    return net(end=end, domains=["own"], functions=[made])


def shared():
    """A convolution's and a product's weight, each read twice."""
    nodes = [
        *BODY[:4],
        ("Conv", ["e", "v"], ["e2"]),
        ("GlobalAveragePool", ["e2"], ["p"]),
        *BODY[5:],
        ("MatMul", ["h", "k"], ["i"]),
        ("Relu", ["i"], ["j"]),
        ("MatMul", ["j", "k"], ["y"]),
    ]
    return model(nodes, HELD)


def spectrum():
    """Complex numbers, which ONNX keeps in a last dimension of two."""
    nodes = [
        ("Unsqueeze", ["x", "last"], ["u"]),
        ("DFT", ["u", "", "axis"], ["z"]),
        ("Slice", ["z", "from", "to", "last"], ["re"]),
        ("Squeeze", ["re", "last"], ["s"]),
        ("Conv", ["s", "w", "b"], ["c"]),
        ("GlobalAveragePool", ["c"], ["p"]),
        *BODY[5:],
        ("MatMul", ["h", "k"], ["y"]),
    ]
    axes = {"last": np.array([-1]), "axis": np.array(2), "from": np.array([0]), "to": np.array([1])}
    return model(nodes, {**HELD, **axes})


def clashing():
    """Names that the passes like to give, taken."""
    names = {"w": "x_scale", "v": "x_zero_point", "m": "c_weight_folded", "k": "f_scale_folded"}
    values = {"r": "x_dequantized", "d": "x_quantized", "p": "f_half", "h": "f_quantized"}
    new = {**names, **values}
    nodes = [
        (op, [new.get(i, i) for i in given], [new.get(o, o) for o in made])
        for op, given, made in [*BODY, ("MatMul", ["h", "k"], ["y"])]
    ]
    factor = {"x_quantized_scale": normal(1, 8, 1, 1, seed=4)}
    nodes.insert(1, ("Mul", ["c", "x_quantized_scale"], ["c_quantized"]))
    nodes[2] = ("Relu", ["c_quantized"], [new["r"]])
    return model(nodes, {**{new.get(k, k): v for k, v in HELD.items()}, **factor})


def microsofts():
    end = [("Gelu", ["h"], ["g"], {"domain": "com.microsoft"}), ("MatMul", ["g", "k"], ["y"])]
    return net(end=end, domains=["com.microsoft"])


def embedded():
    nodes = [
        ("Gather", ["table", "x"], ["e"]),
        ("MatMul", ["e", "k"], ["g"]),
        ("ReduceMean", ["g", "axis"], ["y"], {"keepdims": 0}),
    ]
    held = {"table": normal(50, 64), "k": HELD["k"], "axis": np.array([1])}
    return model(nodes, held, ("n", 6), TensorProto.INT64)


ODD = {
    f.__name__: f
    for f in (chosen, looped, function, shared, spectrum, clashing, microsofts, embedded)
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("name", PASSES)
def test_odd_files_compute_the_same(run, name, kind):
    x = np.random.default_rng(0).integers(0, 50, (16, 6)) if kind == "embedded" else X
    same(run, name, rewritten(name, ODD[kind](), x), ODD[kind](), x)


@pytest.mark.parametrize("kind", ["none", TensorProto.FLOAT16, TensorProto.DOUBLE])
@pytest.mark.parametrize("name", PASSES)
def test_files_without_float32_layers(run, name, kind):
    """No layer, or layers in half or double precision: refused, or left as they are."""
    if kind == "none":
        nodes = [("Relu", ["x"], ["e"]), *BODY[4:5], ("Flatten", ["p"], ["y"])]
        proto, x = model(nodes, {}), X
    else:
        dtype = helper.tensor_dtype_to_np_dtype(kind)
        proto = net({k: v.astype(dtype) for k, v in HELD.items()}, kind=kind)
        x = X.astype(dtype)
    if name in EXACT:
        found = ir.to_proto(rewritten(name, proto, x))
        assert [n.op_type for n in found.graph.node] == [n.op_type for n in proto.graph.node]
        held = {t.name: numpy_helper.to_array(t) for t in found.graph.initializer}
        for tensor in proto.graph.initializer:
            np.testing.assert_array_equal(held[tensor.name], numpy_helper.to_array(tensor))
        return
    with pytest.raises(ModelError, match=f"`{name.partition('(')[0]}`.*float32"):
        rewritten(name, proto, x)


@pytest.mark.parametrize("before", ["graph.static_int8", "graph.dynamic_int8"])
@pytest.mark.parametrize("name", [n for n in PASSES if n not in (*EXACT, "graph.float16")])
def test_quantized_files_are_not_quantized_again(name, before):
    proto = ir.to_proto(rewritten(before, net(), X))
    with pytest.raises(ModelError, match=r"quantized already|found n"):
        rewritten(name, proto, X)


@pytest.mark.parametrize("name", [*CALIBRATED, "graph.equalize", "graph.smooth"])
def test_a_weight_that_an_unknown_operator_computes(name):
    nodes = [("Decode", ["w"], ["ww"], {"domain": "acme"}), ("Conv", ["x", "ww"], ["c"]), *BODY[1:]]
    proto = model([*nodes, ("MatMul", ["h", "k"], ["y"])], HELD, domains=["acme"])
    with pytest.raises(ModelError, match="acme:Decode"):
        rewritten(name, proto, X)
