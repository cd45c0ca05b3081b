import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper


class Built:
    """A graph of our own, which can be read as IR and run as it is written."""

    def __init__(self, nodes, held, inputs, outputs):
        shapes = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()]
        results = [helper.make_tensor_value_info(n, t, None) for n, t in outputs.items()]
        tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in held.items()]
        graph = helper.make_graph(nodes, "g", shapes, results, tensors)
        opsets = [helper.make_opsetid("", 20)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
        self.proto = onnx.shape_inference.infer_shapes(model)
        onnx.checker.check_model(self.proto, full_check=True)

    @property
    def ir(self):
        return ir.from_proto(self.proto)


def run_as_written(model, inputs):
    """Return the outputs of an IR model or a proto by name, without any optimization."""
    proto = model if isinstance(model, onnx.ModelProto) else ir.to_proto(model)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(proto.SerializeToString(), options)
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


@pytest.fixture
def build():
    def make(nodes, held=(), inputs=None, outputs=None):
        nodes = [helper.make_node(n[0], n[1], n[2], **(n[3] if len(n) > 3 else {})) for n in nodes]
        outputs = outputs or {nodes[-1].output[0]: TensorProto.FLOAT}
        return Built(nodes, dict(held), inputs or {"x": ["n", 4]}, outputs)

    return make


@pytest.fixture
def run():
    return run_as_written
