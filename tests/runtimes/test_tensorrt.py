"""The runtime `tensorrt` on a fake GPU (`fake_tensorrt.py`), and refused where there is none."""

import importlib.util
import json
import runpy
import shlex
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from fettle.core.bundle import Bundle, Manifest, write_bundle
from fettle.core.errors import BundleError, CheckFailed, InputError, MissingError, ModelError
from fettle.core.hashing import file_sha256
from fettle.core.shelf import PASSES, RUNTIMES
from fettle.runtimes import _tensorrt_cuda as cuda
from fettle.runtimes import _tensorrt_store as store
from fettle.runtimes import tensorrt as runtime_module
from fettle.runtimes import trtexec_commands
from fettle.runtimes._tensorrt_building import Plan, build_engine
from fettle.runtimes._tensorrt_layers import check_precision, precisions, read_layers
from fettle.testing import RuntimeContract, sample

HERE = Path(__file__).parent
FAKE = runpy.run_path(str(HERE / "fake_tensorrt.py"))
CASES = runpy.run_path(str(HERE.parent / "graph" / "tensorrt_cases.py"))["CASES"]
DRIVER = cuda.driver
PLAN = Plan(batch=1, largest_batch=8, length=16, workspace_mb=64)


@pytest.fixture
def machine(monkeypatch, tmp_path):
    return FAKE["Machine"](monkeypatch, tmp_path / "cache")


def runtime(**knobs):
    return RUNTIMES.make("tensorrt", **knobs)


@pytest.fixture
def session(machine):
    made = runtime().build(sample().onnx)
    yield made
    made.close()


class TestContract(RuntimeContract):
    """What every runtime keeps, with a GPU that is a fake."""

    @pytest.fixture(autouse=True)
    def gpu(self, machine):
        return machine

    def pytest_generate_tests(self, metafunc):
        metafunc.parametrize("name", ["tensorrt"])


# where something is missing ------------------------------------------------------------------


@pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="it is installed")
def test_without_the_package_its_install_line_is_given():
    assert "pip install tensorrt" in runtime().supports()
    assert "NVIDIA's own package index" in runtime().supports()
    with pytest.raises(MissingError, match="pip install tensorrt"):
        runtime().build(sample().onnx)


def test_without_a_driver_or_a_device_tensorrt_is_never_touched(machine):
    machine.patch.setattr(runtime_module, "_module", None)  # calling it would be a TypeError
    machine.patch.setattr(cuda, "driver", lambda: FAKE["Driver"](devices=0))
    assert "knows no device" in runtime().supports()
    machine.patch.setattr(cuda, "driver", DRIVER)
    machine.patch.setattr(cuda, "_LIBRARY", "libcuda-that-is-not-here.so")
    assert "no CUDA driver" in runtime().supports()
    with pytest.raises(MissingError, match="NVIDIA GPU"):
        runtime().build(sample().onnx)


def test_a_driver_that_fails_says_which_call(machine):
    machine.install(fail=["cuInit"])
    assert "cuInit failed with CUDA error 700" in runtime().supports()


def test_an_old_tensorrt_is_refused(machine):
    machine.install("8.6.1")
    assert "TensorRT 8.6.1 is installed, 10 or newer is needed" in runtime().supports()


def test_precision_is_no_knob(machine):
    assert "`graph.half`" in runtime(precision="bf16").supports()
    assert runtime().supports() is None


# building -------------------------------------------------------------------------------------


def test_the_network_is_typed_as_its_graph_and_has_a_profile(machine):
    runtime(batch=4, largest_batch=16, workspace_mb=256).build(sample().onnx).close()
    assert machine.trt.seen.flags == 1 << 1  # STRONGLY_TYPED in 10
    assert machine.trt.seen.profiles == {"input": ((1, 1, 8, 8), (4, 1, 8, 8), (16, 1, 8, 8))}
    config = machine.trt.seen.config
    assert config.limits == {0: 256 << 20}
    assert config.cleared == [machine.trt.BuilderFlag.TF32]
    assert config.profiling_verbosity == machine.trt.ProfilingVerbosity.DETAILED
    machine.install("11.4.0")
    runtime().build(sample().onnx).close()
    assert machine.trt.seen.flags == 0  # implied, and the enumeration is gone


def test_what_the_linter_rejects_is_refused_with_its_mend(machine):
    with pytest.raises(ModelError, match="quantize symmetrically"):
        runtime().build(sample().master, ["graph.lower_ort_x86"])
    assert machine.trt.built == []


def test_a_silent_fp32_engine_is_an_error(machine):
    machine.install(says="FP32")
    with pytest.raises(CheckFailed, match=r"0 of \d+ products"):
        runtime().build(sample().master)
    assert machine.driver.live == 0
    assert machine.driver.memory == {}


def test_half_precision_is_asserted_too(machine, tmp_path):
    half = tmp_path / "half.onnx"
    ir.save(PASSES.make("graph.half")(ir.load(sample().onnx), sample().task), half)
    with pytest.raises(CheckFailed, match="doesn't run in f16"):
        runtime().build(half)
    machine.install(says="FP16")
    layers = runtime().build(half).layers()
    assert {layer.precision for layer in layers} == {"f16"}


@pytest.mark.parametrize("rule", ["zero-point", "unsigned-activations", "custom-operator"])
def test_models_that_would_go_wrong_are_never_built(machine, tmp_path, rule):
    path = tmp_path / "m.onnx"
    path.write_bytes(CASES[rule][1]().SerializeToString())
    with pytest.raises(ModelError):
        runtime().build(path)


# running --------------------------------------------------------------------------------------


def test_each_shape_is_captured_once(session, machine):
    for batch in (2, 3, 2, 3, 2):
        found = session.run(sample().inputs(batch))["logits"]
        np.testing.assert_allclose(found, sample().expected[:batch], rtol=1e-3, atol=1e-3)
    assert machine.driver.calls.count("cuStreamBeginCapture_v2") == 2
    assert machine.driver.calls.count("cuGraphLaunch") == 5


def test_of_many_shapes_those_used_last_are_kept(session, machine):
    for batch in (*range(1, 13), 12, 1):
        found = session.run(sample().inputs(batch))["logits"]
        np.testing.assert_allclose(found, sample().expected[:batch], rtol=1e-3, atol=1e-3)
    assert machine.driver.calls.count("cuStreamBeginCapture_v2") == 13  # 1 was dropped meanwhile
    assert len(machine.driver.graphs) == 8


def test_what_cant_be_captured_runs_plainly(machine):
    machine.install(fail=["cuStreamBeginCapture_v2"])
    session = runtime().build(sample().onnx)
    found = session.run(sample().inputs(2))["logits"]
    np.testing.assert_allclose(found, sample().expected[:2], rtol=1e-3, atol=1e-3)
    assert "cuGraphLaunch" not in machine.driver.calls


def test_more_examples_than_the_profile_holds_are_refused(session):
    with pytest.raises(InputError, match="largest_batch"):
        session.run({"input": np.zeros((65, 1, 8, 8), np.float32)})
    with pytest.raises(InputError):
        session.run({"input": np.zeros((0, 1, 8, 8), np.float32)})


def test_the_device_is_timed_by_events(session, machine):
    machine.patch.setattr("fettle.runtimes._tensorrt_session._WARM_MS", 1.0)
    times = session.device_times(sample().inputs(2), runs=5)
    assert len(times) == 5
    assert machine.driver.calls.count("cuEventRecord") == 10
    assert all(time > 0 for time in times)


def test_layers_and_their_times_bear_the_same_names(session):
    names = [layer.name for layer in session.layers()]
    assert [layer.name for layer in session.layer_times(sample().inputs(2), 3)] == names
    assert session.layers()[0].shape == (1, 2)


def test_closing_gives_everything_back(machine):
    session = runtime().build(sample().onnx)
    session.run(sample().inputs(2))
    session.close()
    session.close()
    assert (machine.driver.live, machine.driver.memory, machine.driver.graphs) == (0, {}, {})


# files ----------------------------------------------------------------------------------------


def test_an_engine_is_built_once_and_kernels_are_timed_once(machine):
    for _ in range(2):
        runtime().build(sample().onnx).close()
    assert machine.trt.built == [b""]
    runtime().build(sample().master).close()
    assert machine.trt.built == [b"", b"t"]  # with the times of the first build


@pytest.mark.parametrize("change", ["version", "engine", "writable"])
def test_an_engine_that_does_not_fit_is_built_anew(machine, change):
    runtime().build(sample().onnx).close()
    folder = machine.folder / "tensorrt"
    (engine,) = (path for path in folder.glob("*.model") if "timing" not in path.name)
    if change == "version":
        machine.install("10.14.0")
    elif change == "engine":
        engine.write_bytes(engine.read_bytes() + b"\0")
    else:
        engine.chmod(0o666)
    machine.trt.built.clear()
    runtime().build(sample().onnx).close()
    assert len(machine.trt.built) == 1


def binding(**changes):
    fields = {"tensorrt": "10.13.0", "gpu": "Fake GPU", "capability": "9.0", "model": "ab"}
    return store.Binding(**{**fields, "plan": {"batch": 1}, **changes})


def test_an_engine_is_opened_only_where_its_hash_is_vouched_for(tmp_path):
    path = store.keep(tmp_path, binding(), b"code")
    digest = file_sha256(path)
    assert store.vouched(path, binding(), digest) == b"code"
    with pytest.raises(BundleError, match="vouched"):
        store.vouched(path, binding(), "0" * 64)
    with pytest.raises(BundleError, match="gpu 'Fake GPU', here 'Other'"):
        store.vouched(path, binding(gpu="Other"), digest)
    path.with_suffix(".json").write_text("{")
    with pytest.raises(BundleError, match="was built for tensorrt None"):
        store.vouched(path, binding(), digest)
    path.write_bytes(b"evil")
    with pytest.raises(BundleError, match="vouched"):
        store.vouched(path, binding(), digest)


@pytest.fixture
def bundle(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "model.onnx").write_bytes(sample().onnx.read_bytes())
    signature = sample().task.signature
    manifest = Manifest(signature.inputs, (), "static", files={})
    return write_bundle(tmp_path / "bundle", manifest, source).path


def test_a_bundle_carries_its_engine_to_the_same_kind_of_machine(machine, bundle):
    sealed = runtime().seal(bundle)
    assert sorted(name.partition("/")[0] for name in Bundle.open(bundle).manifest.files) == [
        *("engines", "engines", "model.onnx")
    ]
    assert sealed.model_path.is_file()
    machine.patch.setenv("FETTLE_CACHE", str(bundle.parent / "elsewhere"))
    machine.trt.built.clear()
    runtime().build(sealed.model_path).close()
    assert machine.trt.built == []
    machine.install("11.4.0")  # another TensorRT: built anew of the ONNX file
    runtime().build(sealed.model_path).close()
    assert len(machine.trt.built) == 1


def test_an_engine_that_was_changed_in_a_bundle_is_never_opened(machine, bundle):
    runtime().seal(bundle)
    (engine,) = bundle.glob("engines/*.engine")
    engine.write_bytes(b"ENGINE" + b"evil")
    with pytest.raises(BundleError, match="not what its manifest vouches for"):
        runtime().build(bundle / "model.onnx")


# what TensorRT says -----------------------------------------------------------------------------


def described(kind, key="Format/Datatype"):
    """Return an inspector's JSON in the form of TensorRT 10 or, with another key, of Myelin."""
    tensor = {"Name": "x", "Dimensions": [1, 3], key: kind}
    layer = {"Name": "a + b", "LayerType": "CaskConvolution", "Inputs": [tensor]}
    metadata = "[ONNX Layer: a]\x1e[ONNX Layer: b]"
    return json.dumps({"Layers": [{**layer, "Outputs": [tensor], "Metadata": metadata}]})


@pytest.mark.parametrize(
    ("text", "key", "precision"),
    [
        ("Thirty-two wide channel vectorized row major Int8 format", "Format/Datatype", "int8"),
        ("Channel major FP16 format where channel % 8 == 0", "Format/Datatype", "f16"),
        ("Row major linear FP32", "Format/Datatype", "f32"),
        ("Row major linear BFloat16 format", "Format/Datatype", "bf16"),
        ("Half", "Datatype", "f16"),
        ("Int8", "Datatype", "int8"),
        ("Float", "Datatype", "f32"),
    ],
)
def test_the_type_of_a_layer_is_read_from_its_tensors(text, key, precision):
    (layer,) = read_layers(described(text, key))
    assert layer.precision == precision
    assert layer.nodes == ("a", "b")
    assert precisions([layer])[0].shape == (1, 3)
    assert precisions([layer])[0].origins == ("a", "b")


def test_an_engine_that_tells_no_types_is_not_believed():
    with pytest.raises(CheckFailed, match="profiling verbosity"):
        read_layers(json.dumps({"Layers": ["conv1", "conv2"]}))


def test_fused_layers_count_for_every_node_that_they_hold():
    layers = read_layers(described("Int8"))
    check_precision(layers, "int8", frozenset({"a", "b"}))
    with pytest.raises(CheckFailed, match=r"0 of 2 products do \(a, b\)"):
        check_precision(read_layers(described("FP32")), "int8", frozenset({"a", "b"}))
    check_precision(layers, "f32", frozenset())  # nothing to multiply, nothing to check


# command lines ------------------------------------------------------------------------------------


def words(version, form, shapes=None):
    return shlex.split(trtexec_commands(Path("a b.onnx"), form, shapes or {})[version])


def test_trtexec_is_told_the_precision_only_where_it_asks():
    assert {"--int8", "--workspace=4096"} <= set(words("8.x", "int8"))
    assert "--fp16" in words("8.x", "f16")
    for form in ("f32", "f16", "int8"):
        for version in ("10.x", "11.x"):
            assert not {"--fp16", "--int8", "--best", "--calib"} & set(words(version, form))
            assert "--memPoolSize=workspace:4096" in words(version, form)
        assert "--stronglyTyped" in words("10.x", form)
        assert "--stronglyTyped" not in words("11.x", form)


def test_trtexec_is_told_the_profile_and_a_path_with_spaces():
    shapes = {"x": PLAN.shapes((-1, 3, 8)), "y": PLAN.shapes((-1, -1))}
    found = words("11.x", "f32", shapes)
    assert found[1] == "--onnx=a b.onnx"
    assert "--minShapes=x:1x3x8,y:1x1" in found
    assert "--optShapes=x:1x3x8,y:1x16" in found
    assert "--maxShapes=x:8x3x8,y:8x16" in found
    assert not [w for w in words("11.x", "f32") if "Shapes" in w]


def test_the_commands_for_a_file_are_told_where_there_is_no_gpu():
    found = runtime(batch=4, largest_batch=16, workspace_mb=512).trtexec(sample().master)
    assert list(found) == ["8.x", "10.x", "11.x"]
    assert "--int8 --fp16 --workspace=512" in found["8.x"]
    assert "--optShapes=input:4x1x8x8 --maxShapes=input:16x1x8x8" in found["11.x"]
    assert "--noTF32" in runtime().trtexec(sample().onnx)["11.x"]
    with pytest.raises(ModelError, match="missing"):
        runtime().trtexec(Path("missing.onnx"))


# NVIDIA's own package, which builds without a GPU ---------------------------------------------


@pytest.fixture
def rtx():
    return pytest.importorskip("tensorrt_rtx", reason="pip install tensorrt-rtx")


@pytest.mark.filterwarnings("ignore:.*Timing cache operations are no-ops:DeprecationWarning")
def test_nvidias_builder_takes_what_is_asked_of_it(rtx):
    built = build_engine(rtx, sample().master.read_bytes(), PLAN)
    assert len(built.engine) > 10_000
    again = build_engine(rtx, sample().master.read_bytes(), PLAN, built.timings)
    assert len(again.engine) > 10_000


@pytest.mark.filterwarnings("ignore:.*Timing cache operations are no-ops:DeprecationWarning")
def test_nvidias_reasons_reach_the_user(rtx):
    with pytest.raises(ModelError, match="zero point"):
        build_engine(rtx, CASES["zero-point"][1]().SerializeToString(), PLAN)
    with pytest.raises(ModelError, match="Quantized constant"):
        build_engine(rtx, CASES["stray-integers"][1]().SerializeToString(), PLAN)
