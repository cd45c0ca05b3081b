from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper


@pytest.fixture
def make_onnx(tmp_path):
    """Write a graph of `nodes` with the arrays `held` as its constants; return its path."""

    def make(nodes, held, shapes, domains=("",), external=False, **given) -> Path:
        inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()]
        outputs = [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)]
        tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in held.items()]
        graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
        opsets = [helper.make_opsetid(d, 17 if d == "" else 1) for d in domains]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8, **given)
        path = tmp_path / "model.onnx"
        onnx.save(
            model, str(path), save_as_external_data=external, location="weights.bin",
            size_threshold=0,
        )  # fmt: skip
        return path

    return make
