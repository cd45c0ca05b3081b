import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fettle import models, tasks
from fettle.export import export_onnx
from fettle.search._random_inputs import FREE_LENGTH, random_inputs, table_rows


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("random") / "out"
    task = tasks.load("tokens:9:2:70")
    export_onnx(models.load("hf:bert-1x64", signature=task.signature), task, folder)
    return folder / "model.onnx"


def test_ids_are_of_the_table_and_masks_are_one(encoder):
    assert table_rows(encoder) == {"input_ids": 70}
    found = random_inputs(encoder, 5)
    ids, mask = found["input_ids"], found["attention_mask"]
    assert (ids.shape, ids.dtype, mask.shape) == ((5, 9), np.int64, (5, 9))
    assert len(np.unique(ids)) > 20
    assert 1 <= ids.min() <= ids.max() < 70
    assert (mask == 1).all()
    np.testing.assert_array_equal(ids, random_inputs(encoder, 5)["input_ids"])


def lookup(path, rows, shape, moved=False):
    """Write a graph that looks `x` up in a table of `rows`, maybe through a cast."""
    nodes = [helper.make_node("Gather", ["table", "moved" if moved else "x"], ["y"], axis=0)]
    if moved:
        nodes.insert(0, helper.make_node("Cast", ["x"], ["moved"], to=TensorProto.INT32))
    graph = helper.make_graph(
        nodes,
        "lookup",
        [helper.make_tensor_value_info("x", TensorProto.INT64, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ones((rows, 2), np.float32), "table")],
    )
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


def test_a_free_length_and_a_cast(tmp_path):
    path = lookup(tmp_path / "m.onnx", 30, ["n", "t"], moved=True)
    assert table_rows(path) == {"x": 30}
    assert random_inputs(path, 3)["x"].shape == (3, FREE_LENGTH)


def test_segments_are_the_first_and_a_fixed_batch_stays(tmp_path):
    found = random_inputs(lookup(tmp_path / "m.onnx", 2, [4, 6]))["x"]
    np.testing.assert_array_equal(found, np.zeros((4, 6)))
