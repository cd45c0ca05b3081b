import numpy as np
import onnx
import pytest
from onnx import helper

from fettle.core.arrays import TensorSpec
from fettle.core.bundle import Manifest, write_bundle
from fettle.core.errors import ModelError
from fettle.core.shelf import METRICS
from fettle.measure import Artifact, file_bytes, onnx_bytes

W = np.arange(1000, dtype=np.float32).reshape(20, 50)


@pytest.fixture
def matmul(make_onnx):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    return lambda **given: make_onnx(nodes, {"w": W}, {"x": ["batch", 20]}, **given)


def test_one_file_is_its_bytes(matmul):
    path = matmul()
    assert onnx_bytes(path) == path.stat().st_size > W.nbytes
    assert file_bytes(path) == path.stat().st_size


def test_external_data_counts(matmul):
    path = matmul(external=True)
    assert path.stat().st_size < W.nbytes
    assert onnx_bytes(path) == path.stat().st_size + (path.parent / "weights.bin").stat().st_size
    assert onnx_bytes(path) >= W.nbytes


def test_a_bundle_is_its_model_alone(matmul, tmp_path):
    path = matmul(external=True)
    (path.parent / "card.md").write_text("card")
    spec = (TensorSpec("x", "float32", (-1, 20)),)
    bundle = write_bundle(tmp_path.with_name("b"), Manifest(spec, spec, "leave"), path.parent)
    assert onnx_bytes(bundle.path) == onnx_bytes(path)
    assert file_bytes(bundle.path) > onnx_bytes(path)


def test_the_plug_in_is_on_its_shelf(matmul):
    found = METRICS.make("size").measure(Artifact(matmul()))
    assert (found.name, found.unit, found.better) == ("size", "B", "lower")
    assert found.low == found.value == found.high == onnx_bytes(matmul())


def test_missing_and_broken_files_are_refused(tmp_path):
    for reader in (onnx_bytes, file_bytes):
        with pytest.raises(ModelError, match="expected"):
            reader(tmp_path / "none.onnx")
    for text in (b"", b"no onnx at all"):
        (tmp_path / "bad.onnx").write_bytes(text)
        with pytest.raises(ModelError, match="can't be read as ONNX"):
            onnx_bytes(tmp_path / "bad.onnx")


def test_external_data_that_is_missing_or_leaves_its_folder_is_refused(matmul):
    path = matmul(external=True)
    (path.parent / "weights.bin").unlink()
    with pytest.raises(ModelError, match="missing beside it"):
        onnx_bytes(path)
    model = onnx.load(str(path), load_external_data=False)
    for outside in ("../weights.bin", "/etc/passwd"):
        for entry in model.graph.initializer[0].external_data:
            if entry.key == "location":
                entry.value = outside
        path.write_bytes(model.SerializeToString())
        with pytest.raises(ModelError, match="leaves its folder"):
            onnx_bytes(path)
