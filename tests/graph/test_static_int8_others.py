"""Files as others make them: old, odd, with branches, operators of their own and fixed sizes."""

import os
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import openvino
import pytest
from onnx import TensorProto, helper, numpy_helper

from fettle.core.arrays import Batch
from fettle.core.errors import DataError, ModelError
from fettle.core.shelf import PASSES

F = np.float32
DATA = Path(os.environ.get("FETTLE_DATA") or Path(__file__).parents[3] / "shared" / "data")


class Inputs:
    """A task that has calibration inputs and nothing else."""

    def __init__(self, **inputs):
        self.inputs = inputs

    def size(self, split):
        return len(next(iter(self.inputs.values())))

    def batches(self, split, batch_size):
        for start in range(0, self.size(split), batch_size):
            part = {k: v[start : start + batch_size] for k, v in self.inputs.items()}
            yield Batch(part, np.zeros(min(batch_size, self.size(split) - start)))


def normal(*shape, scale=1.0, seed=0):
    return np.random.default_rng(seed).normal(0, scale, shape).astype(F)


def quantized(proto, task, **knobs):
    return PASSES.make("graph.static_int8", **knobs)(ir.from_proto(proto), task)


def on_openvino(model, inputs):
    core = openvino.Core()
    network = core.read_model(ir.to_proto(model).SerializeToString())
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "1"}
    compiled = core.compile_model(network, "CPU", options)
    found = compiled(inputs)
    return {port.any_name: np.array(found[port]) for port in compiled.outputs}


def distance(found, expected):
    return max(np.abs(found[k] - expected[k]).mean() / np.abs(expected[k]).mean() for k in expected)


def model_of(nodes, held, inputs, outputs, opset=20, ir_version=9, domains=()):
    """Return a model of float tensors, unchecked."""
    made = [helper.make_node(n[0], n[1], n[2], **(n[3] if len(n) > 3 else {})) for n in nodes]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()]
    results = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs]
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in held.items()]
    graph = helper.make_graph(made, "g", values, results, tensors)
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)


def test_an_old_file_whose_inputs_list_its_weights(run):
    """Operator set 8, IR version 3, a weight that is reshaped before use, a bias as an Add."""
    held = {
        "w": normal(4, 3, 3, 3, scale=0.3),
        "b": normal(4, 1, 1, seed=1),
        "v": normal(2, 2, 36, 2, scale=0.2, seed=2).reshape(4, 6, 6, 2),
        "flat": np.array([0, -1], np.int64),
        "matrix": np.array([144, 2], np.int64),
    }
    inputs = {"x": [1, 3, 8, 8], **{k: list(v.shape) for k, v in held.items() if v.dtype == F}}
    proto = model_of(
        [
            ("Conv", ["x", "w"], ["c"]),
            ("Add", ["c", "b"], ["d"]),
            ("Relu", ["d"], ["r"]),
            ("Reshape", ["r", "flat"], ["f"]),
            ("Reshape", ["v", "matrix"], ["m"]),
            ("MatMul", ["f", "m"], ["y"]),
        ],
        held, inputs, ["y"], opset=8, ir_version=3,
    )  # fmt: skip
    for name in ("flat", "matrix"):
        value = helper.make_tensor_value_info(name, TensorProto.INT64, [2])
        proto.graph.input.append(value)
    x = normal(9, 3, 8, 8, seed=3)
    result = quantized(proto, Inputs(x=x))
    assert [value.name for value in result.graph.inputs] == ["x"]
    assert result.graph.opset_imports[""] == 20
    weights = [n.inputs[0].const_value for n in result.graph if n.op_type == "DequantizeLinear"]
    assert [w.shape.numpy() for w in weights if w is not None] == [(144, 2), (4, 3, 3, 3)]
    assert not [n for n in result.graph if n.op_type == "Add"]
    found, expected = (run(m, {"x": x[:1]}) for m in (result, proto))
    assert distance(found, expected) < 0.03


def branching():
    """A convolution, an LSTM, an If whose branches read from outside, and two outputs."""
    branch = {}
    for name, op in (("then", "Relu"), ("else", "Neg")):
        value = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, None)
        node = helper.make_node(op, ["c"], [f"{name}_y"])
        branch[f"{name}_branch"] = helper.make_graph([node], name, [], [value])
    held = {
        "w": normal(4, 3, 3, 3, scale=0.3),
        "lw": normal(1, 20, 6, scale=0.3),
        "lr": normal(1, 20, 5, scale=0.3),
        "zero": np.zeros(1, F),
        "axis": np.array([0], np.int64),
        "g": normal(5, 3),
    }
    nodes = [
        ("Conv", ["x", "w"], ["c"]),
        ("ReduceMean", ["c"], ["mean"], {"keepdims": 0}),
        ("Less", ["mean", "zero"], ["less"]),
        ("Squeeze", ["less", "axis"], ["negative"]),
        ("If", ["negative"], ["i"], branch),
        ("ReduceMean", ["i", "one"], ["p"], {"keepdims": 0}),
        ("LSTM", ["p", "lw", "lr"], ["", "h"], {"hidden_size": 5}),
        ("Squeeze", ["h", "axis"], ["s"]),
        ("MatMul", ["s", "g"], ["y"]),
    ]
    held["one"] = np.array([1], np.int64)
    return model_of(nodes, held, {"x": ["n", 3, 8, 8]}, ["y", "i"])


def test_branches_and_recurrent_layers_are_left_alone(run):
    proto, x = branching(), normal(12, 3, 8, 8)
    result = quantized(proto, Inputs(x=x))
    (chosen,) = [n for n in result.graph if n.op_type == "If"]
    inside = [n.op_type for b in chosen.attributes.values() for n in b.as_graph()]
    assert sorted(inside) == ["Neg", "Relu"]
    assert [n.inputs[2].name for n in result.graph if n.op_type == "LSTM"] == ["lr"]
    found, expected = (run(m, {"x": x}) for m in (result, proto))
    assert list(found) == ["y", "i"]
    assert distance(found, expected) < 0.05


def test_operators_of_another_domain_are_left_alone(run):
    held = {"w": normal(4, 3, 3, 3, scale=0.3), "v": normal(2, 4, 1, 1)}
    proto = model_of(
        [
            ("Conv", ["x", "w"], ["c"]),
            ("Gelu", ["c"], ["g"], {"domain": "com.microsoft"}),
            ("Conv", ["g", "v"], ["y"]),
        ],
        held, {"x": ["n", 3, 8, 8]}, ["y"], domains=["com.microsoft"],
    )  # fmt: skip
    x = normal(12, 3, 8, 8)
    result = quantized(proto, Inputs(x=x))
    assert [n.domain for n in result.graph if n.op_type == "Gelu"] == ["com.microsoft"]
    found, expected = (run(m, {"x": x}) for m in (result, proto))
    assert distance(found, expected) < 0.03


def test_an_operator_that_nobody_knows_is_named():
    nodes = [("Conv", ["x", "w"], ["c"]), ("Mystery", ["c"], ["y"], {"domain": "acme"})]
    held = {"w": normal(4, 3, 3, 3)}
    proto = model_of(nodes, held, {"x": ["n", 3, 8, 8]}, ["y"], domains=["acme"])
    with pytest.raises(ModelError, match="Mystery"):
        quantized(proto, Inputs(x=normal(4, 3, 8, 8)))


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_other_floats_are_refused_with_the_mend(kind):
    proto = model_of([("MatMul", ["x", "w"], ["y"])], {}, {"x": ["n", 4]}, ["y"])
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    proto.graph.initializer.append(numpy_helper.from_array(normal(4, 4).astype(dtype), "w"))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = kind
    with pytest.raises(ModelError, match="exported in float32"):
        quantized(proto, Inputs(x=normal(4, 4).astype(dtype)))


def test_integer_inputs_and_a_table_of_embeddings(run):
    held = {"table": normal(10, 6), "w": normal(6, 3)}
    proto = model_of(
        [("Gather", ["table", "x"], ["e"]), ("MatMul", ["e", "w"], ["y"])], held, {}, ["y"]
    )
    proto.graph.input.append(helper.make_tensor_value_info("x", TensorProto.INT64, ["n", 5]))
    x = np.random.default_rng(0).integers(0, 10, (16, 5))
    result = quantized(proto, Inputs(x=x))
    found, expected = (run(m, {"x": x}) for m in (result, proto))
    assert distance(found, expected) < 0.02


@pytest.mark.parametrize("written", [True, False])
def test_what_a_layer_norm_reads_stays_in_float(written):
    norm = [("LayerNormalization", ["t", "one"], ["n"])]
    if written:
        norm = [
            ("ReduceMean", ["t", "last"], ["mu"]),
            ("Sub", ["t", "mu"], ["d"]),
            ("Mul", ["d", "d"], ["dd"]),
            ("ReduceMean", ["dd", "last"], ["v"]),
            ("Add", ["v", "eps"], ["ve"]),
            ("Sqrt", ["ve"], ["sd"]),
            ("Div", ["d", "sd"], ["n"]),
        ]
    proto = model_of(
        [
            ("Conv", ["x", "w"], ["c"]),
            ("Transpose", ["c"], ["t"], {"perm": [0, 2, 3, 1]}),
            *norm,
            ("MatMul", ["n", "u"], ["y"]),
        ],
        {
            "w": normal(4, 3, 2, 2), "u": normal(4, 2), "one": np.ones(4, F),
            "last": np.array([-1], np.int64), "eps": np.array(1e-5, F),
        },
        {"x": ["n", 3, 8, 8]}, ["y"],
    )  # fmt: skip
    result = quantized(proto, Inputs(x=normal(8, 3, 8, 8)))
    found = {n.inputs[0].name for n in result.graph if n.op_type == "QuantizeLinear"}
    assert found == {"x", "n"}


@pytest.mark.parametrize(
    "knobs", [{"correct": "fast"}, {"correct": "full"}, {"rounding": "adaptive"}]
)
def test_the_rescue_comes_no_farther_from_the_float_model(run, knobs):
    nodes = [
        ("Conv", ["x", "w"], ["c"], {"group": 3}),
        ("Relu", ["c"], ["r"]),
        ("Conv", ["r", "v", "b"], ["d"]),
        ("Relu", ["d"], ["e"]),
        ("GlobalAveragePool", ["e"], ["y"]),
    ]
    held = {"w": normal(3, 1, 3, 3), "v": normal(8, 3, 1, 1), "b": normal(8)}
    proto = model_of(nodes, held, {"x": ["n", 3, 8, 8]}, ["y"])
    x = normal(64, 3, 8, 8)
    plain, rescued = (quantized(proto, Inputs(x=x), **k) for k in ({}, knobs))
    y = run(proto, {"x": x})["y"]
    errors = [np.abs((run(m, {"x": x})["y"] - y).mean(0)).mean() for m in (plain, rescued)]
    assert errors[1] <= errors[0] * 1.05


FOREIGN = {
    "mnist_cntk": {"Input3": normal(12, 1, 28, 28, scale=80)},
    "ultraface_rfb_320": {"input": np.cumsum(normal(3, 3, 240, 320), axis=-1) / 20},
    "dtln_1": {"input_2": np.abs(normal(9, 1, 257)), "input_3": normal(9, 2, 128, 2, scale=0.3)},
}


@pytest.mark.data
@pytest.mark.parametrize("name", FOREIGN)
def test_the_files_of_others_agree_on_both_engines(run, name):
    path = DATA / "onnx" / f"{name}.onnx"
    if not path.is_file():
        pytest.skip(f"the benchmark data is not at {DATA}")
    inputs = FOREIGN[name]
    result = quantized(onnx.load(path), Inputs(**inputs))
    onnx.checker.check_model(ir.to_proto(result), full_check=True)
    one = {key: array[:1] for key, array in inputs.items()}
    expected = run(onnx.load(path), one)
    assert distance(run(result, one), expected) < 0.06
    assert distance(on_openvino(result, one), expected) < 0.06


@pytest.mark.data
def test_a_state_that_the_data_lacks_is_named():
    path = DATA / "onnx" / "dtln_1.onnx"
    if not path.is_file():
        pytest.skip(f"the benchmark data is not at {DATA}")
    with pytest.raises(DataError, match="input_3"):
        quantized(onnx.load(path), Inputs(input_2=FOREIGN["dtln_1"]["input_2"]))


@pytest.mark.parametrize("last", ["Concat", "Conv"])
def test_what_becomes_tokens_stays_in_float_and_what_is_only_shuffled_does_not(last):
    """OpenVINO computes a ViT wrongly where tokens in float meet quantized ones."""
    shape = {"Concat": [0, 4, 49], "Conv": [0, 2, 2, 7, 7]}[last]
    order = {"Concat": [0, 2, 1], "Conv": [0, 2, 1, 3, 4]}[last]
    end = {
        "Concat": [("Concat", ["first", "t"], ["k"], {"axis": 1}), ("MatMul", ["k", "u"], ["y"])],
        "Conv": [("Reshape", ["t", "back"], ["r"]), ("Conv", ["r", "v"], ["y"])],
    }[last]
    proto = model_of(
        [
            ("Conv", ["x", "w"], ["c"]),
            ("Reshape", ["c", "shape"], ["s"]),
            ("Transpose", ["s"], ["t"], {"perm": order}),
            *end,
        ],
        {
            "w": normal(4, 3, 2, 2), "v": normal(5, 4, 1, 1), "u": normal(4, 2),
            "first": normal(8, 1, 4), "shape": np.array(shape), "back": np.array([0, 4, 7, 7]),
        },
        {"x": [8, 3, 8, 8]}, ["y"],
    )  # fmt: skip
    result = quantized(proto, Inputs(x=normal(8, 3, 8, 8)))
    found = {n.inputs[0].name for n in result.graph if n.op_type == "QuantizeLinear"}
    assert ("c" in found) == (last == "Conv")
    assert {"Concat": "k", "Conv": "r"}[last] in found
