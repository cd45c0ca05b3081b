"""Does an engine work here? It builds a graph of one product and gets the right numbers out."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fettle.core.errors import FettleError
from fettle.runtimes._runtime import Runtime


def smoke(runtime: Runtime) -> str | None:
    """Return what is wrong with a runtime on this machine, with the mend, or None."""
    fault = runtime.supports()
    if fault or runtime.takes != "onnx":
        return fault
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    weight = np.eye(3, dtype=np.float32)[:, ::-1].copy()
    try:
        with tempfile.TemporaryDirectory(prefix="fettle-smoke-") as folder:
            path = Path(folder) / "product.onnx"
            onnx.save(_product(weight), path)
            session = runtime.build(path)
            found = session.run({"x": x})["y"]
            session.close()
    except FettleError as error:
        return str(error)
    if np.allclose(found, x @ weight):
        return None
    return f"computes a matrix product wrongly: {found.tolist()}; reinstall it"


def _product(weight: np.ndarray) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
