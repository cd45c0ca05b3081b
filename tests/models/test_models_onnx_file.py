from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fettle import models
from fettle.core.errors import ModelError


def graph(op="Add", location=None, inside=False):
    weight = numpy_helper.from_array(np.arange(4, dtype=np.float32), "w")
    if location is not None:
        onnx.external_data_helper.set_external_data(weight, location)
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])
    node = helper.make_node(op, ["x", "w"], ["y"])
    if inside:
        branch = helper.make_graph(
            [helper.make_node("Identity", ["w"], ["z"])],
            "branch",
            [],
            [helper.make_tensor_value_info("z", TensorProto.FLOAT, [4])],
            [weight],
        )
        node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
        x = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    made = helper.make_graph([node], "g", [x], [y], [] if inside else [weight])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def write(path, model):
    path.write_bytes(model.SerializeToString())
    return path


def test_a_path_says_whether_it_is_onnx():
    assert models.is_onnx("folder/model.onnx")
    assert not models.is_onnx("cifar:resnet20")


def test_a_sound_model_is_returned(tmp_path):
    model = models.check_onnx(write(tmp_path / "m.onnx", graph()))
    assert [node.op_type for node in model.graph.node] == ["Add"]


def test_data_beside_the_model_is_loaded(tmp_path):
    (tmp_path / "m.data").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    model = models.check_onnx(write(tmp_path / "m.onnx", graph(location="m.data")))
    found = numpy_helper.to_array(model.graph.initializer[0])
    np.testing.assert_array_equal(found, [0, 1, 2, 3])


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "a/../../secret.bin"])
def test_data_outside_the_folder_is_refused(tmp_path, location, inside):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(16))
    path = write(folder / "m.onnx", graph(location=location, inside=inside))
    with pytest.raises(ModelError, match="outside the model's folder"):
        models.check_onnx(path)


def test_a_link_that_leads_outside_is_refused(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(16))
    (folder / "m.data").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(ModelError, match="outside the model's folder"):
        models.check_onnx(write(folder / "m.onnx", graph(location="m.data")))


@pytest.mark.parametrize("content", [b"", b"no protobuf at all", graph("NoSuchOperator")])
def test_what_is_no_model_is_refused(tmp_path, content):
    path = tmp_path / "m.onnx"
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    with pytest.raises(ModelError, match="no valid ONNX"):
        models.check_onnx(path)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(ModelError, match="there is none"):
        models.check_onnx(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="not beside it"):
        models.check_onnx(write(tmp_path / "m.onnx", graph(location="m.data")))
