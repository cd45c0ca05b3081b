import gc
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from fettle.core.errors import ModelError, UnknownName
from fettle.core.shelf import RUNTIMES
from fettle.runtimes import _lowering
from fettle.runtimes._lowering import lowered
from fettle.testing import sample


def test_without_a_lowering_the_file_itself_is_used():
    assert lowered(sample().master, ()) == sample().master


def test_a_lowered_graph_is_valid_and_another():
    found = lowered(sample().master, ["graph.lower_ort_x86"])
    model = onnx.load_from_string(found)
    onnx.checker.check_model(model, full_check=True)
    assert found != sample().master.read_bytes()


def test_an_unknown_pass_is_named():
    with pytest.raises(UnknownName, match=r"graph\.lower_ort_x86"):
        lowered(sample().master, ["graph.lower_ort_x87"])


@pytest.mark.parametrize("names", [(), ["graph.lower_ort_x86"]])
def test_a_missing_file_is_a_model_error(tmp_path, names):
    with pytest.raises(ModelError, match="is not there"):
        lowered(tmp_path / "none.onnx", names)


@pytest.mark.parametrize("content", [b"", b"garbage" * 9, b"\x08\x09\x3a\xff\xff"])
def test_a_broken_file_is_a_model_error(tmp_path, content):
    (tmp_path / "bad.onnx").write_bytes(content)
    with pytest.raises(ModelError):
        lowered(tmp_path / "bad.onnx", ["graph.lower_ort_x86"])


def test_weights_beside_the_file_are_taken_along(tmp_path):
    """The lowered bytes are whole: an engine that is given bytes knows no folder."""
    path = tmp_path / "model.onnx"
    ir.save(ir.load(sample().master), path, external_data="model.onnx.data", size_threshold_bytes=0)
    apart, whole = (_lowered_outputs(p) for p in (path, sample().master))
    np.testing.assert_array_equal(apart, whole)


def _lowered_outputs(path):
    session = RUNTIMES.make("onnxruntime", threads=1).build(path, ("graph.lower_ort_x86",))
    return next(iter(session.run(sample().inputs(8)).values()))


def test_a_graph_too_large_for_bytes_lies_on_disk_while_it_is_held(monkeypatch):
    monkeypatch.setattr(_lowering, "_LARGEST", 1000)
    path = lowered(sample().master, ["graph.lower_ort_x86"])
    folder = Path(str(path)).parent
    assert isinstance(path, Path)
    onnx.checker.check_model(str(path), full_check=True)
    assert path.stat().st_size < sum(file.stat().st_size for file in folder.iterdir())
    del path
    gc.collect()
    assert not folder.exists()


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_an_engine_runs_a_graph_that_is_too_large_for_bytes(engine, monkeypatch):
    runtime = RUNTIMES.make(engine, threads=1)
    if runtime.supports() is not None:
        pytest.skip(runtime.supports())
    steps = ("graph.lower_ort_x86",)
    expected = runtime.build(sample().master, steps).run(sample().inputs(8))["logits"]
    monkeypatch.setattr(_lowering, "_LARGEST", 1000)
    session = runtime.build(sample().master, steps)
    gc.collect()  # its files are gone by now
    np.testing.assert_array_equal(session.run(sample().inputs(8))["logits"], expected)
    assert session.layers()
