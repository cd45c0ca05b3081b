"""Small ONNX files made by hand."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT


def node(op, inputs, outputs, **attributes):
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def write(path, nodes, *, weights=(), domains=(), opset=20, ir_version=10, **tensors):
    """Write a model; `tensors` are `x=(type, shape)` for inputs and `y=…` for outputs."""
    values = {
        name: helper.make_tensor_value_info(name, kind, shape)
        for name, (kind, shape) in tensors.items()
    }
    made = {name for n in nodes for name in n.output}
    graph = helper.make_graph(
        nodes,
        "made by hand",
        [value for name, value in values.items() if name not in made],
        [value for name, value in values.items() if name in made],
        [numpy_helper.from_array(np.asarray(w), name) for name, w in dict(weights).items()],
    )
    opsets = [helper.make_opsetid(*pair) for pair in (("", opset), *domains)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=ir_version), path)
    return path
