"""The INT8 files that onnxruntime's and NNCF's own quantizers make of an FP32 model."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx

Batches = Sequence[np.ndarray | dict[str, np.ndarray]]  # of the only input, or by name
_TRANSFORMER = "LayerNormalization"


def by_onnxruntime(model: Path, batches: Batches, out: Path, default: bool = False) -> Path:
    """Quantize with onnxruntime.quantization: u8s8 by channel, as its documentation advises.

    With `default`, as it comes: s8s8, one scale a tensor.
    """
    from onnxruntime import quantization as q
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(q.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left: Iterator[np.ndarray | dict[str, np.ndarray]] = iter(batches)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.left, None)
            return None if batch is None else _named(batch, name)

    name = onnx.load(model, load_external_data=False).graph.input[0].name
    prepared = out.with_suffix(".prepared.onnx")
    quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
    advised = {"per_channel": True, "activation_type": q.QuantType.QUInt8}
    q.quantize_static(
        str(prepared),
        str(out),
        Reader(),
        weight_type=q.QuantType.QInt8,
        **({} if default else advised),
    )
    return out


def by_nncf(model: Path, batches: Batches, out: Path) -> Path | str:
    """Quantize with NNCF; return why not where it isn't installed or fails."""
    os.environ["NNCF_EXTENSION_LOAD_TIMEOUT"] = "0"
    try:
        import nncf
        from nncf.quantization.advanced_parameters import (
            AdvancedQuantizationParameters,
            QuantizationParameters,
        )
    except ImportError:
        return "nncf is not installed"
    graph = onnx.load(model)
    name = graph.graph.input[0].name
    transformer = any(node.op_type == _TRANSFORMER for node in graph.graph.node)
    kind = nncf.ModelType.TRANSFORMER if transformer else None
    parameters = AdvancedQuantizationParameters(
        # by channel, onnxruntime refuses depthwise activations when it runs
        activations_quantization_params=QuantizationParameters(per_channel=False)
    )
    data = nncf.Dataset([_named(batch, name) for batch in batches])
    try:
        made = nncf.quantize(graph, data, model_type=kind, subset_size=len(batches),
                             advanced_parameters=parameters)  # fmt: skip
    except Exception as error:  # whatever it raises, the table says so
        return f"nncf fails: {str(error).splitlines()[0]}"
    onnx.save(made, out)
    return out


def _named(batch: np.ndarray | dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    return batch if isinstance(batch, dict) else {name: batch}
