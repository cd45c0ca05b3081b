import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from fettle.core.errors import ModelError
from fettle.core.shelf import RUNTIMES
from fettle.testing import sample


def runtime(**knobs):
    return RUNTIMES.make("onnxruntime", **{"threads": 1, **knobs})


def convolutions(session):
    return [layer for layer in session.layers() if "conv" in layer.op.lower()]


def test_bf16_is_refused_with_its_mend():
    with pytest.raises(ModelError) as caught:
        runtime(precision="bf16").build(sample().onnx)
    assert "use `openvino(precision='bf16')`" in str(caught.value)


def test_the_master_as_it_is_runs_partly_in_float():
    """Which is why it is lowered, and why the layers are asked."""
    plain, lowered = (
        convolutions(runtime().build(sample().master, names))
        for names in ((), ["graph.lower_ort_x86"])
    )
    assert {layer.precision for layer in plain} == {"f32", "int8"}
    assert {layer.precision for layer in lowered} == {"int8"}
    assert {layer.op for layer in lowered} == {"QLinearConv"}


def test_the_lowered_classifier_runs_in_integers():
    layers = runtime().build(sample().master, ["graph.lower_ort_x86"]).layers()
    last = [layer for layer in layers if "Gemm" in layer.op]
    assert [(layer.op, layer.precision) for layer in last] == [("QGemm", "int8")]


def test_a_lowering_does_not_change_the_file():
    before = sample().master.read_bytes()
    runtime().build(sample().master, ["graph.lower_ort_x86"])
    assert sample().master.read_bytes() == before


def test_a_lowering_that_does_not_fit_the_model_is_refused():
    with pytest.raises(ModelError, match=r"graph\.lower_ort_x86"):
        runtime().build(sample().onnx, ["graph.lower_ort_x86"])


def test_an_operator_that_the_engine_lacks_is_named(tmp_path):
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in "xy")
    node = helper.make_node("Sharpen", ["x"], ["y"], domain="com.example")
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.example", 1)]
    graph = helper.make_graph([node], "g", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="Sharpen"):
        runtime().build(tmp_path / "m.onnx")


def test_the_number_of_threads_changes_no_answer():
    one, two = (runtime(threads=n).build(sample().onnx).run(sample().inputs()) for n in (1, 2))
    np.testing.assert_allclose(one["logits"], two["logits"], rtol=1e-5, atol=1e-5)


def test_external_data_may_not_leave_its_folder(tmp_path):
    """CVE-2022-25882 and its successors: a model names a file outside of its folder."""
    secret = tmp_path / "secret"
    secret.write_bytes(np.arange(4, dtype=np.float32).tobytes())
    weight = onnx.numpy_helper.from_array(np.zeros(4, np.float32), "w")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../secret")
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [4]) for n in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    opsets = [helper.make_opsetid("", 20)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    path = tmp_path / "inside" / "model.onnx"
    path.parent.mkdir()
    path.write_bytes(proto.SerializeToString())
    for name in ("onnxruntime", "openvino"):
        made = RUNTIMES.make(name, threads=1)
        if made.supports() is None:
            with pytest.raises(ModelError):
                made.build(path)
