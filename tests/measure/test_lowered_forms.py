import numpy as np
import onnx
import onnx_ir as ir
import pytest

from fettle.core.errors import FettleError
from fettle.measure._lowered_forms import Forms, digest_of
from fettle.runtimes import _lowering
from fettle.testing import sample

STEP = ("graph.lower_ort_x86",)


@pytest.fixture
def forms(tmp_path):
    return Forms(sample().master, tmp_path)


def test_what_changes_nothing_has_the_same_digest(forms):
    assert forms.digest(()) == digest_of(sample().master)
    assert forms.digest(STEP) != forms.digest(())
    assert forms.digest((*STEP, "graph.lower_ort_x86_norms")) == forms.digest(STEP)


def test_it_does_not_matter_where_weights_lie(forms, tmp_path, monkeypatch):
    beside = tmp_path / "m.onnx"
    ir.save(ir.load(sample().master), beside, external_data="w", size_threshold_bytes=0)
    assert digest_of(beside) == forms.digest(())
    expected = forms.digest(STEP)
    monkeypatch.setattr(_lowering, "_LARGEST", 0)  # as of a graph that no protobuf holds
    large = Forms(beside, tmp_path / "none")
    assert large.digest(STEP) == expected
    written = onnx.load(large.path(STEP), load_external_data=False).graph.initializer
    assert any(tensor.external_data for tensor in written)


def test_one_bit_of_a_weight_is_a_difference(tmp_path):
    model = onnx.load(sample().onnx)
    tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
    contents = bytearray(tensor.raw_data)
    contents[5] ^= 1
    tensor.raw_data = bytes(contents)
    onnx.save(model, tmp_path / "m.onnx")
    assert digest_of(tmp_path / "m.onnx") != digest_of(sample().onnx)


@pytest.mark.parametrize("change", ["shape", "type"])
def test_the_same_bytes_of_another_shape_are_a_difference(tmp_path, change):
    def saved(name, array):
        value = onnx.numpy_helper.from_array(array, "w")
        end = onnx.helper.make_tensor_value_info("y", value.data_type, None)
        node = onnx.helper.make_node("Identity", ["w"], ["y"])
        graph = onnx.helper.make_graph([node], "g", [], [end], [value])
        onnx.save(onnx.helper.make_model(graph, ir_version=8), tmp_path / name)
        return digest_of(tmp_path / name)

    array = np.arange(6, dtype=np.int32)
    other = array.reshape(2, 3) if change == "shape" else array.view(np.uint32)
    assert saved("a", array) != saved("b", other)


def test_strings_count_too(tmp_path):
    def saved(name, words):
        value = onnx.helper.make_tensor("w", onnx.TensorProto.STRING, [2], words)
        end = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.STRING, None)
        node = onnx.helper.make_node("Identity", ["w"], ["y"])
        graph = onnx.helper.make_graph([node], "g", [], [end], [value])
        onnx.save(onnx.helper.make_model(graph, ir_version=8), tmp_path / name)
        return digest_of(tmp_path / name)

    assert saved("a", [b"one", b"two"]) == saved("b", [b"one", b"two"])
    assert saved("a", [b"one", b"two"]) != saved("b", [b"one", b"six"])


def test_two_files_are_kept_the_ones_asked_for_last(forms, tmp_path):
    first = forms.path(STEP)
    second = forms.path(("graph.lower_float",))
    assert forms.path(STEP) == first
    assert forms.path(()) == sample().master
    assert not second.exists()
    assert first.exists()
    assert sample().master.exists()
    assert list(tmp_path.iterdir()) == [first]


def test_a_step_that_can_not_be_applied_is_told(forms):
    with pytest.raises(FettleError, match="no_such"):
        forms.digest(("graph.no_such",))
