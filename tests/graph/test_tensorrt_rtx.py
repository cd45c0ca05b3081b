"""Every rule of the linter against NVIDIA's own parser and builder, and fettle's models in them.

Runs where `pip install tensorrt-rtx` was done; it needs no GPU. That package is TensorRT for RTX,
whose parser is TensorRT's own; its kernels are not those of the data-centre library, so that a
type that is asserted here is asserted anew from every engine that is built for use.
"""

import runpy
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

rtx = pytest.importorskip("tensorrt_rtx", reason="pip install tensorrt-rtx, which needs no GPU")

from fettle.core.shelf import PASSES  # noqa: E402
from fettle.graph.tensorrt_lint import lint  # noqa: E402

HERE = Path(__file__).parent
GRAPHS = runpy.run_path(str(HERE / "tensorrt_cases.py"))
CASES, VARIANTS, SOUND = GRAPHS["CASES"], GRAPHS["VARIANTS"], GRAPHS["SOUND"]
NAMES = runpy.run_path(str(HERE / "tensorrt_builder.py"))


def build(model, **how):
    proto = model if isinstance(model, onnx.ModelProto) else ir.to_proto(model)
    return NAMES["attempt"](rtx, proto, **how)


def of(severity):
    """Return the broken graphs of the rules of a severity, each under its rule's name."""
    found = []
    for name, (kind, broken, _) in CASES.items():
        ways = (broken, *VARIANTS.get(name, ())) if kind == severity else ()
        found += [pytest.param(way, id=f"{name}-{i}") for i, way in enumerate(ways)]
    return found


@pytest.mark.parametrize("broken", of("rejected"))
def test_what_is_called_rejected_is_refused(broken):
    made = build(broken())
    assert made.stage in ("parse", "build")
    assert made.errors


@pytest.mark.parametrize("rule", CASES)
def test_what_is_called_sound_builds(rule):
    made = build(CASES[rule][2]())
    assert (made.stage, made.errors) == ("done", [])


@pytest.mark.parametrize("broken", of("wrong"))
def test_unsigned_activations_are_taken_for_signed_ones(broken):
    """ONNX clips at 255 and TensorRT at 127, without a word."""
    assert build(broken()).quantized == {"INT8"}
    assert integer_types(broken()) == {"UINT8"}


@pytest.mark.parametrize("broken", of("float"))
def test_what_is_called_float_builds_without_integers(broken):
    made = build(broken())
    assert made.stage == "done"
    assert made.products
    assert made.in_integers == []


@pytest.mark.parametrize("name", SOUND)
def test_what_is_let_pass_runs_in_integers(name):
    made = build(SOUND[name]())
    assert made.products
    assert made.in_integers == made.products


def compared(rule):
    """Return the builds of the graph that breaks a rule and of the one that doesn't."""
    _, broken, sound = CASES[rule]
    return build(broken()), build(sound())


@pytest.mark.parametrize("rule", ["rounded-twice", "quantized-branch", "quantized-result"])
def test_what_is_called_slower_rounds_more_often(rule):
    broken, sound = compared(rule)
    assert broken.times("Roun") > sound.times("Roun")


def test_a_residual_that_is_read_in_float_is_written_twice():
    broken, sound = compared("float-residual")
    assert broken.written("Float") > sound.written("Float")


def test_a_free_dimension_needs_a_profile():
    model = CASES["dynamic-input"][1]()
    assert build(model, profile=False).stage == "build"
    assert build(model).stage == "done"
    assert build(CASES["dynamic-input"][2](), profile=False).stage == "done"


def test_the_list_of_unsupported_operators_is_the_parsers_own():
    """A newer TensorRT may know more: then the linter's list is to be shortened."""
    log = rtx.Logger(rtx.Logger.ERROR)
    network = rtx.Builder(log).create_network(0)
    parser = rtx.OnnxParser(network, log)
    schemas = {schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain}
    refused = {name for name in schemas if not parser.supports_operator(name)}
    from fettle.graph import _tensorrt_rejected as rules

    assert refused == rules._UNSUPPORTED | (set(rules._INTEGER_OPERATORS) & schemas)


def integer_types(model):
    """Return the types of what QuantizeLinear makes, after onnx's own inference."""
    inferred = onnx.shape_inference.infer_shapes(model)
    made = {n.output[0] for n in inferred.graph.node if n.op_type == "QuantizeLinear"}
    kinds = [v.type.tensor_type.elem_type for v in inferred.graph.value_info if v.name in made]
    return {onnx.TensorProto.DataType.Name(kind) for kind in kinds}


@pytest.fixture
def sample():
    """What fettle makes of a small residual network and of an encoder, which needs torch."""
    pytest.importorskip("torch")
    from fettle.testing import sample

    return sample()


def test_the_master_runs_in_integers(sample):
    made = build(ir.load(sample.master))
    assert made.stage == "done"
    assert len(made.products) == 8  # seven convolutions and the classifier
    assert made.in_integers == made.products


def test_so_does_what_the_graph_pass_makes(sample):
    quantized = PASSES.make("graph.static_int8")(ir.load(sample.onnx), sample.task)
    made = build(quantized)
    assert made.stage == "done"
    assert made.in_integers == made.products


def test_half_precision_is_half_precision(sample):
    made = build(PASSES.make("graph.half")(ir.load(sample.onnx), sample.task))
    assert made.stage == "done"
    assert {kind for layer in made.products for kind in layer.reads} == {"Half"}


def test_in_single_precision_nothing_is_less(sample):
    made = build(ir.load(sample.onnx))
    assert {kind for layer in made.products for kind in layer.reads} == {"Float"}


def test_onnxruntimes_lowering_is_refused_as_the_linter_says(sample):
    lowered = PASSES.make("graph.lower_ort_x86")(ir.load(sample.master))
    assert "rejected" in {finding.severity for finding in lint(lowered)}
    assert build(lowered).stage == "parse"


def test_what_the_linter_calls_wrong_is_built_without_a_word(sample):
    lowered = PASSES.make("graph.lower_openvino_rectified")(ir.load(sample.master))
    made = build(lowered)
    assert (made.stage, made.errors, made.quantized) == ("done", [], {"INT8"})
    assert "wrong" in {finding.severity for finding in lint(lowered)}


def test_an_encoder_multiplies_in_integers(sample):
    from fettle.core.shelf import TECHNIQUES

    path = sample.exported(TECHNIQUES.make("quantize.static")(sample.encoder, sample.task), "e")
    made = build(ir.load(path))
    assert made.stage == "done"
    integers = [layer for layer in made.products if layer in made.in_integers]
    # patches, then four linear layers in each of two blocks; attention's own products are float
    assert len(integers) >= 8
