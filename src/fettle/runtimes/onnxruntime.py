"""onnxruntime on the CPU.

Floating-point layers run in f32. INT8 is fast on x86 only after a lowering of the master, which
`build` applies when it is named. Sessions are thread-safe.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime as ort

from fettle.core.arrays import Arrays, TensorSpec
from fettle.core.errors import ModelError
from fettle.core.machine import usable_threads
from fettle.runtimes._lowering import lowered
from fettle.runtimes._runtime import LayerPrecision, LayerTime, Runtime, Session, match_inputs

if TYPE_CHECKING:
    from torch import nn

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}


@dataclass(frozen=True, kw_only=True)
class OnnxRuntime(Runtime):
    """onnxruntime's CPU execution provider."""

    def build(self, model: Path | nn.Module, lowering: Sequence[str] = ()) -> Session:
        """Load the ONNX file `model`."""
        if self.precision != "f32":
            raise ModelError(
                f"onnxruntime computes floating-point layers in f32 on a CPU, not in"
                f" {self.precision}: use `openvino(precision='{self.precision}')`"
            )
        assert isinstance(model, Path)
        threads = self.threads or usable_threads()
        return OrtSession(lowered(model, lowering), threads)


class OrtSession(Session):
    """One loaded model; `model` is a path, or the bytes of a lowered graph."""

    def __init__(self, model: Path | bytes, threads: int) -> None:
        self._model, self._threads = model, threads
        self._session = _load(model, _options(threads))
        self.inputs = tuple(_spec(value) for value in self._session.get_inputs())
        self.outputs = tuple(_spec(value) for value in self._session.get_outputs())
        self._names = [spec.name for spec in self.outputs]

    def run(self, inputs: Arrays) -> Arrays:
        """Return the outputs by name."""
        inputs = match_inputs(self.inputs, inputs)
        return dict(zip(self._names, self._session.run(None, inputs), strict=True))

    def layers(self) -> list[LayerPrecision]:
        """Read the precision of each layer from the graph as onnxruntime optimized it."""
        with tempfile.TemporaryDirectory() as folder:
            options = _options(self._threads)
            options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
            _load(self._model, options)
            optimized = onnx.load(options.optimized_model_filepath)
        return [_layer(node) for node in optimized.graph.node]

    def layer_times(self, inputs: Arrays, runs: int = 20) -> list[LayerTime]:
        """Read the time of each kernel from onnxruntime's own profile of a second session."""
        inputs = match_inputs(self.inputs, inputs)
        with tempfile.TemporaryDirectory() as folder:
            options = _options(self._threads)
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "profile")
            session = _load(self._model, options)
            for _ in range(runs):
                session.run(None, inputs)
            events = json.loads(Path(session.end_profiling()).read_text())
        return _times(events)

    def close(self) -> None:
        """Drop the session."""
        del self._session


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # Idle pools must not spin while another engine is being measured in the same process.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def _load(model: Path | bytes, options: ort.SessionOptions) -> ort.InferenceSession:
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exception classes have no public base
        raise ModelError(f"onnxruntime refuses the model: {error}") from error


def _spec(value: ort.NodeArg) -> TensorSpec:
    shape = tuple(d if isinstance(d, int) else -1 for d in value.shape)
    return TensorSpec(value.name, _DTYPES.get(value.type, value.type), shape)


def _times(events: list[dict[str, Any]]) -> list[LayerTime]:
    """Return each kernel's median in the order of the first run."""
    spent: dict[str, list[float]] = defaultdict(list)
    ops: dict[str, str] = {}
    for event in events:
        name, end, _ = event["name"].rpartition("_kernel_time")
        if event.get("cat") == "Node" and end:
            spent[name].append(event["dur"] / 1000)  # microseconds
            ops[name] = event["args"]["op_name"]
    return [LayerTime(name, ops[name], float(np.median(ms))) for name, ms in spent.items()]


def _layer(node: onnx.NodeProto) -> LayerPrecision:
    integer = node.op_type.startswith(("QLinear", "QGemm", "QAttention")) or any(
        mark in node.op_type for mark in ("Integer", "DynamicQuantize", "QuantizeLSTM")
    )
    return LayerPrecision(node.name, node.op_type, "int8" if integer else "f32")
