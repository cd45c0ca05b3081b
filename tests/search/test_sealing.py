"""What a study's bundle holds beside the model, by the runtime that won."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from fettle.core.bundle import Bundle
from fettle.core.errors import BundleError
from fettle.core.recipe import Recipe
from fettle.core.shelf import RUNTIMES
from fettle.search.compress import compress
from fettle.search.study import Setting
from fettle.search.workshop import Source
from fettle.testing import sample

FAKE = runpy.run_path(str(Path(__file__).parents[1] / "runtimes" / "fake_tensorrt.py"))


@pytest.fixture
def machine(monkeypatch, tmp_path):
    return FAKE["Machine"](monkeypatch, tmp_path / "cache")


@pytest.fixture
def sealed(machine, tmp_path, monkeypatch):
    """The bundle of a study whose only target is a fake GPU's TensorRT."""
    monkeypatch.setattr("fettle.search._measuring.Measuring.peak_memory", lambda *_: None)
    source, setting = Source(str(sample().onnx)), Setting(target=("tensorrt",), seconds=0.2)
    result = compress(source, sample().task, Recipe(), tmp_path / "out", setting)
    assert result["best"]["runtime"] == "tensorrt"
    return tmp_path / "out" / "best"


def test_with_tensorrt_the_engine_lies_beside_the_onnx_file(sealed, machine, monkeypatch):
    files = Bundle.open(sealed).manifest.files
    suffixes = sorted(Path(name).suffix for name in files if name.startswith("engines/"))
    assert suffixes == [".engine", ".json"]
    assert "model.onnx" in files
    monkeypatch.setenv("FETTLE_CACHE", str(sealed.parent / "another machine"))
    machine.trt.built.clear()
    session = RUNTIMES.make("tensorrt").build(sealed / "model.onnx")
    assert machine.trt.built == []
    found = session.run(sample().inputs(2))["logits"]
    np.testing.assert_allclose(found, sample().expected[:2], rtol=1e-3, atol=1e-3)
    session.close()


def test_the_manifest_vouches_for_the_engine(sealed):
    (engine,) = sealed.glob("engines/*.engine")
    engine.write_bytes(engine.read_bytes() + b"\0")
    with pytest.raises(BundleError, match="not what its manifest vouches for"):
        Bundle.open(sealed)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_other_runtimes_add_nothing(tmp_path, name):
    RUNTIMES.make(name).add_to_bundle(tmp_path)
    assert list(tmp_path.iterdir()) == []
