"""`fettle inspect` on quantized models as they come: onnxruntime's own, and fettle's master."""

import logging
import shlex

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, quantize_static

from fettle.measure._reasons import REASONS

ENGINES = ("onnxruntime", "openvino")


class Images(CalibrationDataReader):
    def __init__(self):
        made = np.random.default_rng(0).normal(size=(4, 8, 3, 8, 8)).astype(np.float32)
        self.left = iter([{"input": batch} for batch in made])

    def get_next(self):
        return next(self.left, None)


def save_net(path):
    """Write two convolutions, a pool and a product, of random weights."""
    rng = np.random.default_rng(1)
    shapes = {"w1": (16, 3, 3, 3), "w2": (16, 16, 3, 3), "fc": (16, 10)}
    held = [numpy_helper.from_array(rng.normal(0, 0.2, shape).astype(np.float32), name)
            for name, shape in shapes.items()]  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["input", "w1"], ["c1"], name="conv1", pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], name="conv2", pads=[1] * 4),
        helper.make_node("Relu", ["c2"], ["r2"], name="relu2"),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flat"),
        helper.make_node("MatMul", ["f", "fc"], ["logits"], name="head"),
    ]
    ends = [("input", ["n", 3, 8, 8]), ("logits", ["n", 10])]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in ends]
    graph = helper.make_graph(nodes, "net", values[:1], values[1:], held)
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    path = tmp_path_factory.mktemp("net") / "net.onnx"
    save_net(path)
    return path


@pytest.fixture(scope="module")
def signed(plain):
    """What onnxruntime's quantizer makes when it is left alone: int8 by int8."""
    path = plain.with_name("s8s8.onnx")
    logging.disable(logging.WARNING)
    quantize_static(str(plain), str(path), Images())
    logging.disable(logging.NOTSET)
    return path


def products(found, engine):
    """Return what each product that is quantized in the graph runs in, by name."""
    rows = [row for row in found["layers"] if row["quantized"] and row["macs"]]
    return {row["name"]: row["precision"][engine] for row in rows}


def test_a_quantized_file_of_onnxruntime(fettle, signed):
    found = fettle("inspect", signed, "--json").json
    assert found["unfused"].keys() == set(ENGINES)
    for engine in ENGINES:
        left = found["unfused"][engine]
        assert left["meant"] >= 3
        runs = products(found, engine)
        assert runs.keys() == {"conv1", "conv2", "head"}
        # two readings of what the engine told must agree: the layers', and the leftovers'
        named = {row["node"]: row for row in left["layers"]}
        assert {n for n, kind in runs.items() if kind != "int8"} == named.keys() & runs.keys()
        assert all(row["explanation"] == REASONS[row["reason"]] for row in left["layers"])
        assert all(row["ms"] is None for row in left["layers"])


def test_times_of_what_is_left_in_float(fettle, signed):
    found = fettle("inspect", signed, "--profile", "--threads", "1", "--json").json
    rows = [row for engine in ENGINES for row in found["unfused"][engine]["layers"]]
    assert all(row["ms"] > 0 for row in rows)
    assert found["profile"].keys() == set(ENGINES)


@pytest.mark.slow
def test_a_master_of_fettle(fettle, finished):
    """Every product runs in int8 on both engines, but for what was left in float on purpose."""
    found = fettle("inspect", finished / "best", "--json").json
    for engine in ENGINES:
        left = found["unfused"][engine]
        assert left["meant"] > 5
        unwanted = [row for row in left["layers"] if row["reason"] != "on purpose"]
        assert [row["node"] for row in unwanted if row["op"] in ("Conv", "Gemm")] == []
        assert "int8" in products(found, engine).values()


def test_a_plain_file_has_nothing_to_leave(fettle, plain):
    found = fettle("inspect", plain, "--json").json
    assert found["unfused"] == {}
    assert found["precisions"]["onnxruntime"] == {"f32": 4}


def test_what_counts_is_arithmetic(fettle):
    """A transformer's masks and positions are whole numbers and truth values."""
    found = fettle("inspect", "hf:bert-mini", "--data", "tokens:16:2", "--json").json
    for engine in (*ENGINES, "pytorch"):
        assert found["precisions"][engine].keys() == {"f32"}
    assert found["refused"].keys() <= {"tensorrt"}


def test_command_lines_of_a_torch_model_begin_with_its_export(fettle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["cifar:resnet8x0.5", "--data", "digits", "--trtexec"]
    found = fettle("inspect", *words, "--json").json["trtexec"]
    assert next(iter(found)) == "export"
    assert found["export"] == (
        "fettle export --model cifar:resnet8x0.5 --data digits --out cifar_resnet8x0.5.onnx"
    )
    for version, command in found.items():
        if version != "export":
            named = [w for w in shlex.split(command) if w.startswith(("--onnx", "--saveEngine"))]
            assert named == ["--onnx=cifar_resnet8x0.5.onnx",
                             "--saveEngine=cifar_resnet8x0.5.engine"]  # fmt: skip
    out = fettle("inspect", *words).out
    assert out.index("first, the ONNX file:") < out.index("TensorRT 10.x:")
    assert fettle(*shlex.split(found["export"])[1:]).code == 0
    assert (tmp_path / "cifar_resnet8x0.5.onnx").is_file()


def test_command_lines_of_a_file_need_no_export(fettle, plain):
    found = fettle("inspect", plain, "--trtexec", "--json").json["trtexec"]
    assert "export" not in found
    assert all(f"--onnx={plain}" in command for command in found.values())
