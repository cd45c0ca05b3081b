import numpy as np
import onnx
import onnx_ir as ir
import pytest

from fettle.core.errors import ModelError
from fettle.core.shelf import PASSES
from fettle.runtimes.onnxruntime import OnnxRuntime

F = np.float32
X = np.random.default_rng(0).normal(0, 2, (2, 8, 9, 8)).astype(F)
PAIR = ["s", "z"]


def net(build, rectifier=(), left="b"):
    """Three convolutions a, b, c between quantized tensors; `left` has float weights."""
    held = {"s": F(0.05), "z": np.uint8(0 if rectifier else 128)}  # which absorbs the rectifier
    rng, nodes, source = np.random.default_rng(1), [], "x"
    for name in "abc":
        weight = rng.integers(-127, 128, (8, 8, 3, 3)).astype(np.int8)
        scale = rng.uniform(0.0001, 0.01, 8).astype(F)
        nodes += [("QuantizeLinear", [source, *PAIR], [f"{name}_q"]),
                  ("DequantizeLinear", [f"{name}_q", *PAIR], [f"{name}_x"])]  # fmt: skip
        held[f"{name}_b"] = rng.normal(0, 0.3, 8).astype(F)
        if name == left:
            held[f"{name}_d"] = weight * scale[:, None, None, None]
        else:
            held |= {f"{name}_w": weight, f"{name}_s": scale, f"{name}_z": np.zeros(8, np.int8)}
            parts = [f"{name}_{part}" for part in "wsz"]
            nodes.append(("DequantizeLinear", parts, [f"{name}_d"], {"axis": 0}))
        inputs = [f"{name}_x", f"{name}_d", f"{name}_b"]
        nodes.append(("Conv", inputs, [name], {"pads": [1] * 4, "name": f"conv_{name}"}))
        source = name
        if name == left and rectifier:
            nodes.append((rectifier[0], [name, *rectifier[1:]], ["rectified"]))
            source = "rectified"
    nodes += [("QuantizeLinear", [source, *PAIR], ["q"]), ("DequantizeLinear", ["q", *PAIR], ["y"])]
    return build(nodes, held, inputs={"x": list(X.shape)})


def lowered(graph):
    result = PASSES.make("graph.lower_ort_float")(graph.ir)
    onnx.checker.check_model(ir.to_proto(result), full_check=True)
    return result


def precisions(proto, folder):
    onnx.save(proto, folder / "model.onnx")
    session = OnnxRuntime(threads=1).build(folder / "model.onnx")
    return {layer.name[:6]: layer.precision for layer in session.layers() if "Conv" in layer.op}


@pytest.mark.parametrize("rectifier", [(), ("Relu",)])
def test_onnxruntime_leaves_in_float_what_the_master_does(build, run, tmp_path, rectifier):
    graph = net(build, rectifier)
    result = lowered(graph)
    assert "f32" not in precisions(graph.proto, tmp_path).values()  # else there is nothing to mend
    found = precisions(ir.to_proto(result), tmp_path)
    assert list(found.values()).count("f32") == 1
    assert list(found.values()).count("int8") == 2
    before, after = run(graph.proto, {"x": X})["y"], run(result, {"x": X})["y"]
    np.testing.assert_array_equal(before, after)


def test_the_engine_computes_what_the_master_says(build, run, tmp_path):
    graph = net(build)
    expected = run(graph.proto, {"x": X})["y"]
    off = {}
    for name, proto in (("plain", graph.proto), ("kept", ir.to_proto(lowered(graph)))):
        path = tmp_path / f"{name}.onnx"
        onnx.save(proto, path)
        off[name] = np.abs(OnnxRuntime(threads=1).build(path).run({"x": X})["y"] - expected).mean()
    assert off["kept"] < off["plain"] / 3


@pytest.mark.parametrize("left", ["", "c"])
def test_what_stands_between_no_two_quantized_tensors_stays(build, left):
    graph = net(build, left=left)
    if left:  # what leaves the model is not quantized
        graph.proto.graph.ClearField("output")
        graph.proto.graph.output.append(onnx.helper.make_tensor_value_info("c", 1, list(X.shape)))
        del graph.proto.graph.node[-2:]
    result = lowered(graph)
    assert [n.op_type for n in result.graph] == [n.op_type for n in graph.ir.graph]


def test_a_float_model_is_refused(build):
    graph = build([("Relu", ["x"], ["y"])])
    with pytest.raises(ModelError, match="is for quantized models"):
        lowered(graph)
