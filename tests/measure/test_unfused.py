import json

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper

from fettle.core.errors import ModelError
from fettle.measure._reasons import REASONS, reason_of
from fettle.measure.unfused import is_meant, unfused
from fettle.runtimes import LayerPrecision, Session
from fettle.runtimes.onnxruntime import OnnxRuntime
from fettle.runtimes.openvino import OpenVino

NODE = helper.make_node


class Told(Session):
    inputs = outputs = ()

    def __init__(self, *layers):
        self.told = [LayerPrecision(*layer) for layer in layers]

    def run(self, inputs):
        return {}

    def layers(self):
        return self.told

    def close(self):
        pass


def pair(name, zero="zu", scale="s"):
    return [NODE("QuantizeLinear", [name, scale, zero], [f"{name}_q"]),
            NODE("DequantizeLinear", [f"{name}_q", scale, zero], [f"{name}_d"])]  # fmt: skip


def held(**more):
    rng = np.random.default_rng(0)
    values = {"w": rng.integers(-99, 99, (8, 8, 3, 3), np.int8), "ws": np.full(8, 0.01, np.float32),
              "wz": np.zeros(8, np.int8), "s": np.float32(0.05), "zu": np.uint8(128),
              "z8": np.int8(0), "z5": np.int8(5), "g": rng.integers(-99, 99, (8, 4), np.int8),
              "b": np.zeros(4, np.float32), "vs": np.full(8, 0.05, np.float32),
              "vz": np.full(8, 128, np.uint8), "f": np.ones((8, 8, 3, 3), np.float32)}  # fmt: skip
    return {**values, **more}


WEIGHT = NODE("DequantizeLinear", ["w", "ws", "wz"], ["w_d"], axis=0)


def convolution(zero="zu", after=True, rectifier=False, scale="s", weight="w_d", data="x_d"):
    """Return a quantized convolution with whatever is wrong with it."""
    nodes = [WEIGHT, *pair("x", zero, scale), NODE("Conv", [data, weight], ["c"], name="conv")]
    last = "c"
    if rectifier:
        nodes.append(NODE("Relu", ["c"], ["r"], name="relu"))
        last = "r"
    return [*nodes, *pair(last, zero, "s")] if after else nodes


def used(nodes):
    names = {name for node in nodes for name in node.input}
    return {name: array for name, array in held().items() if name in names}


@pytest.fixture
def write(make_onnx):
    return lambda nodes: make_onnx(nodes, used(nodes), {"x": ["n", 8, 6, 6]})


CASES = {
    "unknown": (convolution(), "onnxruntime"),
    "signed activation": (convolution("z8"), "onnxruntime"),
    "zero point of activation": (convolution("z5"), "openvino"),
    "rectifier kept": (convolution("z8", rectifier=True), "onnxruntime"),
    "no output quantizer": (convolution(after=False), "onnxruntime"),
    "per-channel activation": (convolution("vz", False, scale="vs"), "openvino"),
    "input in float": (convolution(data="x"), "onnxruntime"),
    "weight in float": (convolution(weight="f"), "openvino"),
    "float in between": (
        [*convolution(after=False), NODE("Elu", ["c"], ["e"]), *pair("e")], "onnxruntime"),
    "output shared": (
        [*convolution(), NODE("Elu", ["c"], ["e"]), NODE("Add", ["e", "c_d"], ["y"])],
        "onnxruntime"),
    "scale not constant": (
        [NODE("ReduceMax", ["x"], ["s_x"], keepdims=0), *convolution(scale="s_x")], "openvino"),
    "mixed types": (
        [*pair("x"), NODE("Elu", ["x"], ["e"]), *pair("e", "z8"),
         NODE("Add", ["x_d", "e_d"], ["a"], name="conv"), *pair("a")], "onnxruntime"),
    "no kernel": (
        [*pair("x"), NODE("HardSwish", ["x_d"], ["h"], name="conv"), *pair("h")], "onnxruntime"),
    "bias in float": (
        [NODE("Flatten", ["x"], ["t"]), NODE("DequantizeLinear", ["g", "s", "z8"], ["g_d"]),
         *pair("t"), NODE("Gemm", ["t_d", "g_d", "b"], ["y"], name="conv")], "onnxruntime"),
    "zero point of weight": (
        [NODE("DequantizeLinear", ["w", "s", "z5"], ["w_d"]), *convolution()[1:]], "openvino"),
}  # fmt: skip


@pytest.mark.parametrize("reason", CASES)
def test_each_reason(write, reason):
    nodes, engine = CASES[reason]
    graph = ir.load(write(nodes)).graph
    node = next(n for n in graph if n.name == "conv")
    assert is_meant(node)
    assert reason_of(node, engine) == reason


def test_every_reason_has_a_case():
    assert set(CASES) | {"on purpose"} == set(REASONS)


@pytest.mark.parametrize("runtime", [OnnxRuntime(threads=1), OpenVino(threads=1)],
                         ids=["onnxruntime", "openvino"])  # fmt: skip
def test_a_sound_layer_is_fused(write, runtime, request):
    path = write(convolution())
    found = unfused(path, runtime.build(path), request.node.callspec.id)
    assert found.meant == 1
    assert found.layers == ()


def test_openvino_does_not_multiply_asymmetric_int8(write):
    """What onnxruntime.quantization writes by default."""
    path = write(convolution("z5"))
    inputs = {"x": np.ones((1, 8, 6, 6), np.float32)}
    found = unfused(path, OpenVino(threads=1).build(path), "openvino", inputs)
    assert [(x.node, x.reason) for x in found.layers] == [("conv", "zero point of activation")]
    assert found.layers[0].ms is not None
    assert found.conversions
    told = json.loads(json.dumps(found.to_json()))
    assert told["layers"][0]["explanation"] == REASONS["zero point of activation"]


def test_onnxruntime_keeps_a_rectifier_that_its_quantizer_does_not_cut(write):
    path = write(convolution("z8", rectifier=True))
    found = unfused(path, OnnxRuntime(threads=1).build(path), "onnxruntime(threads=1)")
    assert [(x.node, x.reason) for x in found.layers] == [("conv", "rectifier kept")]


def test_what_a_lowering_left_in_float_is_on_purpose(write):
    nodes = convolution("z8")
    path = write([*nodes, NODE("Elu", ["c_d"], ["y"])])
    lowering = ("graph.lower_float(nodes='c')",)
    session = OnnxRuntime(threads=1).build(path, lowering)
    found = unfused(path, session, "onnxruntime", lowering=lowering)
    assert [(x.node, x.reason) for x in found.layers] == [("conv", "on purpose")]


def test_conversions_that_run_on_their_own(write):
    session = Told(("conv", "QLinearConv", "int8"), ("x_q", "QuantizeLinear", "f32"),
                   ("r", "Reorder", "f32"), ("relu", "Relu", "f32"))  # fmt: skip
    found = unfused(write(convolution()), session, "onnxruntime")
    assert [c.name for c in found.conversions] == ["x_q", "r"]
    assert found.layers == ()


def test_nothing_is_said_of_an_engine_that_does_not_tell(write):
    found = unfused(write(convolution()), Told(), "pytorch")
    assert (found.meant, found.layers, found.conversions) == (1, (), ())


def test_a_float_model_means_nothing_for_int8(write):
    nodes = [NODE("Conv", ["x", "f"], ["y"], name="conv")]
    found = unfused(write(nodes), Told(("conv", "Conv", "f32")), "onnxruntime")
    assert (found.meant, found.layers) == (0, ())


def test_no_model(tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError):
        unfused(tmp_path / "bad.onnx", Told(), "onnxruntime")
