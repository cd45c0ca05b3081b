"""Each rule of TensorRT on a graph that breaks it and one that doesn't; then on real models.

What NVIDIA's own parser says to the same graphs is in `test_tensorrt_rtx.py`.
"""

import json
import os
import runpy
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from fettle.core.errors import ModelError
from fettle.core.shelf import PASSES
from fettle.graph.tensorrt_lint import RULES, Finding, lint
from fettle.testing import sample

GRAPHS = runpy.run_path(str(Path(__file__).with_name("tensorrt_cases.py")))
CASES, VARIANTS, SOUND = GRAPHS["CASES"], GRAPHS["VARIANTS"], GRAPHS["SOUND"]
DATA = Path(os.environ.get("FETTLE_DATA") or Path(__file__).parents[3] / "shared" / "data")
ORDER = ("rejected", "wrong", "float", "slower", "note")


def rules(model):
    return {finding.rule for finding in lint(model)}


def worse(model, *but):
    """Return the rules that are broken, besides what any model with a free batch is told."""
    return rules(model) - {"dynamic-input", *but}


def test_every_rule_has_its_graphs():
    assert {rule.name for rule in RULES} == set(CASES)
    assert [rule.severity for rule in RULES] == sorted(
        (rule.severity for rule in RULES), key=ORDER.index
    )


@pytest.mark.parametrize("rule", CASES)
def test_a_rule_finds_what_breaks_it_and_nothing_else(rule):
    severity, broken, sound = CASES[rule]
    found = [f for f in lint(ir.from_proto(broken())) if f.rule == rule]
    assert found
    assert {f.severity for f in found} == {severity}
    names = {n.name for n in broken().graph.node} | {i.name for i in broken().graph.initializer}
    assert all(f.node in names | {"x", "t2_0", "t3_0"} and f.found and f.mend for f in found)
    assert rules(ir.from_proto(sound())) == set()


@pytest.mark.parametrize("rule", VARIANTS)
def test_a_rule_finds_all_ways_of_breaking_it(rule):
    for broken in VARIANTS[rule]:
        assert rule in rules(ir.from_proto(broken()))


@pytest.mark.parametrize("name", SOUND)
def test_what_only_looks_like_it_is_let_pass(name):
    assert rules(ir.from_proto(SOUND[name]())) == set()


def test_the_graph_stays_as_it_is():
    model = ir.from_proto(CASES["mixed-types"][1]())
    before = ir.to_proto(model).SerializeToString()
    lint(model)
    assert ir.to_proto(model).SerializeToString() == before


def test_findings_name_the_node_and_go_into_json():
    found = lint(ir.from_proto(CASES["zero-point"][1]()))
    assert found[0] == Finding(
        "zero-point", "rejected", "quantizelinear_1", "zero point 5", found[0].mend
    )
    assert "symmetrically" in found[0].mend
    data = json.loads(json.dumps([finding.to_json() for finding in found]))
    assert set(data[0]) == {"rule", "severity", "node", "found", "mend"}


def test_the_body_of_a_branch_is_read_too():
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])
    bodies = [
        helper.make_graph(
            [helper.make_node("Sharpen", ["x"], [name], name=name, domain="com.example")],
            name,
            [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4])],
        )
        for name in ("a", "b")
    ]
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
        helper.make_node("Cast", ["m"], ["c"], to=TensorProto.BOOL),
        helper.make_node("If", ["c"], ["y"], then_branch=bodies[0], else_branch=bodies[1]),
    ]
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.example", 1)]
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [y]), opset_imports=opsets)
    assert {f.node for f in lint(ir.from_proto(model))} == {"a", "b"}


@pytest.mark.parametrize("what", ["missing", "empty", "garbage"])
def test_a_file_that_is_no_model_is_refused(tmp_path, what):
    path = tmp_path / "model.onnx"
    if what != "missing":
        path.write_bytes(b"" if what == "empty" else bytes(range(256)) * 4)
    with pytest.raises(ModelError, match=r"model\.onnx"):
        lint(path)


def test_the_masters_of_fettle_build_as_integers():
    """What is left is told of sums, which other engines want quantized on both sides."""
    assert worse(sample().onnx) == set()
    assert worse(sample().master) <= {"quantized-branch"}
    made = PASSES.make("graph.static_int8")(ir.load(sample().onnx), sample().task)
    assert worse(made) <= {"quantized-branch"}


def test_the_lowering_for_onnxruntime_is_not_for_tensorrt():
    lowered = PASSES.make("graph.lower_ort_x86")(ir.load(sample().master))
    assert worse(lowered) & {"zero-point", "unsigned-activations"}


def test_unsigned_activations_with_zero_point_0_would_be_computed_wrongly():
    """As NNCF's files have them, and what OpenVINO is given."""
    lowered = PASSES.make("graph.lower_openvino_rectified")(ir.load(sample().master))
    assert worse(lowered) - {"quantized-branch"} == {"unsigned-activations"}


def test_half_precision_is_clean():
    assert worse(PASSES.make("graph.half")(ir.load(sample().onnx), sample().task)) == set()


def test_smaller_weights_alone_compute_in_float():
    assert worse(sample().weight_only) == {"one-sided"}


class Reader(CalibrationDataReader):
    def __init__(self):
        self.left = [dict(sample().inputs(8))]

    def get_next(self):
        return self.left.pop() if self.left else None


def quantized_by_onnxruntime(path, **options):
    quantize_static(sample().onnx, path, Reader(), **options)
    return worse(path)


def test_onnxruntimes_defaults_are_told_what_tensorrt_refuses(tmp_path):
    found = quantized_by_onnxruntime(tmp_path / "default.onnx")
    assert {"integer-bias", "zero-point"} <= found
    operators = quantized_by_onnxruntime(tmp_path / "op.onnx", quant_format=QuantFormat.QOperator)
    assert "integer-operator" in operators


def test_onnxruntimes_settings_for_tensorrt_are_clean(tmp_path):
    found = quantized_by_onnxruntime(
        tmp_path / "symmetric.onnx",
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["Conv", "Gemm", "MatMul"],
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "QuantizeBias": False,
            "OpTypesToExcludeOutputQuantization": ["Conv", "Gemm", "MatMul"],
        },
    )
    assert found == set()


@pytest.mark.data
@pytest.mark.parametrize("name", ["mnist_cntk", "ultraface_rfb_320", "dtln_1"])
def test_files_made_by_others_are_clean_in_float(name):
    if not DATA.is_dir():
        pytest.skip("the data folder is not here")
    assert worse(DATA / "onnx" / f"{name}.onnx") == set()


def test_weights_beside_the_file_are_not_needed(tmp_path):
    """The linter reads scales and types, and of the weights only that they are there."""
    proto = CASES["zero-point"][2]()
    onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=1024)
    assert rules(tmp_path / "m.onnx") == set()
    next(tmp_path.glob("*-*")).unlink()
    assert rules(tmp_path / "m.onnx") == set()
