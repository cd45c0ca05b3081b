import runpy
from pathlib import Path

import pytest

from fettle.core.errors import InputError, MissingError, UnknownName
from fettle.core.shelf import RUNTIMES
from fettle.core.targets import targets
from fettle.search.study import Setting, Study
from fettle.testing import TinyTask

FAKE = runpy.run_path(str(Path(__file__).parents[1] / "runtimes" / "fake_tensorrt.py"))
COMPRESS = ["compress", "--model", "cifar:resnet8", "--data", "digits"]


@pytest.fixture
def missing(monkeypatch):
    """Return a function that takes a runtime away."""

    def take(name, reason):
        monkeypatch.setattr(RUNTIMES.load(name), "supports", lambda self: reason)

    return take


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    return FAKE["Machine"](monkeypatch, tmp_path)


def test_cpu_is_every_engine_that_is_here(missing):
    assert targets("cpu") == ("onnxruntime", "openvino")
    missing("openvino", "the package `openvino` is not installed: pip install openvino")
    assert targets("cpu") == ("onnxruntime", "openvino")
    missing("onnxruntime", "the package `onnxruntime` is gone: pip install onnxruntime")
    with pytest.raises(MissingError, match="pip install onnxruntime"):
        targets("cpu")


def test_named_ones_have_to_be_here_each(missing):
    assert targets("openvino, onnxruntime,openvino") == ("openvino", "onnxruntime")
    missing("openvino", "the package `openvino` is not installed: pip install openvino")
    with pytest.raises(MissingError, match=r"the runtime `openvino`.*pip install openvino"):
        targets("openvino,onnxruntime")


def test_tensorrt_where_it_is(gpu):
    assert targets("tensorrt") == ("tensorrt",)


@pytest.mark.parametrize("target", ["tensorrt", "onnxruntime,tensorrt"])
def test_without_a_gpu_tensorrt_is_refused_with_its_mend(gpu, target):
    gpu.install(devices=0)
    with pytest.raises(MissingError, match="knows no device") as found:
        targets(target)
    assert found.value.mend.startswith("run it where there is an NVIDIA GPU")
    assert str(found.value).count("to mend it") == 1


def test_cuda_says_what_is_missing_then_why_not(missing):
    missing("pytorch", "`device='cuda'` needs a GPU: torch was built without CUDA")
    with pytest.raises(MissingError, match="built without CUDA"):
        targets("cuda")
    missing("pytorch", None)
    with pytest.raises(InputError, match="--target tensorrt"):
        targets("cuda")


def test_what_takes_torch_modules_is_no_target():
    with pytest.raises(InputError, match="`pytorch` can't run what a study makes, which is ONNX"):
        targets("onnxruntime,pytorch")


@pytest.mark.parametrize("nothing", ["", ",", " , "])
def test_nothing_is_refused(nothing):
    with pytest.raises(InputError, match="cpu, tensorrt or names of runtimes"):
        targets(nothing)


def test_a_slip_of_the_pen_is_told():
    with pytest.raises(UnknownName, match="openvino"):
        targets("openvno")


def test_the_command_exits_with_3_before_anything_is_written(refused, gpu, tmp_path):
    gpu.install(devices=0)
    out = tmp_path / "out"
    refused([*COMPRESS, "-t", "quantize.static", "--target", "tensorrt", "--out", out],
            "NVIDIA GPU", code=3)  # fmt: skip
    assert not out.exists()


@pytest.mark.parametrize(("target", "device"), [("tensorrt", "cuda"), ("onnxruntime", "as_is")])
def test_the_reference_runs_where_the_target_does(target, device, tmp_path):
    class Shop:
        context = type("Context", (), {"progress": None})()
        store, task = None, TinyTask()

        def module(self):
            return None

        def key(self):
            return ""

        def measuring(self, batch, seconds, progress):
            return None

    study = Study(Shop(), Setting(target=(target,)), tmp_path)
    assert study._torch_trial().runtime.device == device
