"""What an INT8 artifact says of itself on a processor without VNNI."""

import logging
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

from fettle.cli import main
from fettle.core.bundle import Bundle
from fettle.core.machine import Machine, this_machine
from fettle.core.recipe import Recipe
from fettle.runtimes.onnxruntime import OnnxRuntime
from fettle.search import _sealing
from fettle.search._saturating import saturates_on, saturation_check
from fettle.search._trial import Trial
from fettle.search.inspection import Asked, inspect
from fettle.search.subject import resolve

OLD = Machine("an old one", "x86_64", ("avx2",), 1)
NEW = replace(OLD, isa=("avx2", "avx512_vnni"))
ARM = Machine("a small one", "aarch64", (), 1)
ONES = np.ones((8, 64), np.float32)


class Ones(CalibrationDataReader):
    def __init__(self):
        self.left = iter([{"x": ONES}, {"x": 0 * ONES}])

    def get_next(self):
        return next(self.left, None)


@pytest.fixture(scope="module", params=[1.0, 0.01], ids=["large", "small"])
def quantized(request, tmp_path_factory):
    """A product whose largest weight is 1, and whose others are 1 or 0.01; and that number."""
    folder = tmp_path_factory.mktemp("net")
    weight = np.full((64, 4), request.param, np.float32)
    weight[0] = 1
    held = [numpy_helper.from_array(weight, "w")]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", k]) for n, k in
            (("x", 64), ("y", 4))]  # fmt: skip
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="product")
    graph = helper.make_graph([node], "net", ends[:1], ends[1:], held)
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), folder / "f.onnx")
    logging.disable(logging.WARNING)
    quantize_static(str(folder / "f.onnx"), str(folder / "q.onnx"), Ones(),
                    activation_type=QuantType.QUInt8)  # fmt: skip
    logging.disable(logging.NOTSET)
    return folder / "q.onnx", request.param


def expected(other):
    """Return the share of pairs of neighbours past 15 bits: 255 · w, in the model's own steps."""
    steps = np.round(np.full((32, 2), other) * 127)
    steps[0, 0] = 127
    return float((255 * steps.sum(1) > 2**15 - 1).mean())


def test_whose_sums_are_cut():
    assert saturates_on(OLD)
    assert not saturates_on(NEW)
    assert not saturates_on(ARM)


def test_inspect_looks_by_itself_where_sums_are_cut(quantized, tmp_path, monkeypatch):
    monkeypatch.setattr("fettle.search.subject.choose_lowering", lambda *given: ((), {}))
    path, other = quantized
    subject = replace(resolve(str(path), tmp_path), inputs={"x": ONES})
    found = inspect(subject, Asked(machine=OLD, threads=1))["saturation"]
    assert found["share"] == pytest.approx(expected(other))
    assert ("without VNNI" in str(found["warning"])) is (found["share"] > 0)
    assert inspect(subject, Asked(machine=NEW, threads=1))["saturation"] is None
    forced = inspect(subject, Asked(machine=NEW, saturation=True, threads=1))["saturation"]
    assert forced == found


def test_a_float_model_has_nothing_to_cut(quantized, tmp_path):
    path, _ = quantized
    subject = resolve(str(path.with_name("f.onnx")), tmp_path)
    assert inspect(subject, Asked(machine=OLD, saturation=True, threads=1))["saturation"] is None


def test_the_check_of_a_bundle(quantized):
    path, other = quantized
    (check,) = saturation_check(path, {"x": ONES}, (), OLD)
    assert check["name"] == "saturation"
    assert check["share"] == pytest.approx(expected(other))
    assert check["passed"] is (expected(other) == 0)
    assert saturation_check(path, {"x": ONES}, (), NEW) == ()


def test_what_can_not_be_told_has_not_passed(quantized):
    (check,) = saturation_check(quantized[0], {}, (), OLD)
    assert (check["passed"], check["share"]) == (False, None)
    assert "can't be told" in check["warning"]


@pytest.mark.parametrize(("precision", "n"), [("int8", 1), ("f32", 0)])
def test_only_what_is_quantized_is_checked(quantized, precision, n):
    golden = lambda winner, count: ({"x": ONES[:count]}, {})  # noqa: E731
    measuring = SimpleNamespace(golden=golden, machine=OLD)
    winner = Trial("t", Recipe.parse("quantize.static"), OnnxRuntime(), "key", quantized[0],
                   precision)  # fmt: skip
    assert len(_sealing._checks(SimpleNamespace(measuring=measuring), winner)) == n


@pytest.mark.slow
def test_a_bundle_of_such_a_processor_says_so(tmp_path, monkeypatch, capfd):
    old = replace(this_machine(), arch="x86_64", isa=("avx2",))
    monkeypatch.setattr("fettle.search._measuring.this_machine", lambda: old)
    words = ["compress", "--model", "cifar:resnet8x0.5", "--data", "digits", "-t",
             "quantize.static", "--target", "onnxruntime", "--batch", "8", "--seconds", "0.5",
             "--max-drop", "0.5", "--out", str(tmp_path / "out")]  # fmt: skip
    assert main(words) in (0, 1)
    (check,) = Bundle.open(tmp_path / "out" / "best").manifest.checks
    assert check["name"] == "saturation"
    assert check["passed"] is (check["share"] == 0)
    assert ("saturate" in capfd.readouterr().out) is not check["passed"]
