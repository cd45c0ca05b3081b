"""OpenVINO on the CPU.

The precision of floating-point layers is pinned: left alone, OpenVINO silently computes in bf16
where the processor has it. A Q/DQ master runs in INT8 as it is. Each thread has its own request.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fettle.core.arrays import Arrays, TensorSpec
from fettle.core.errors import MissingError, ModelError
from fettle.core.machine import this_machine, usable_threads
from fettle.core.shelf import INSTALL
from fettle.runtimes._lowering import lowered
from fettle.runtimes._runtime import LayerPrecision, LayerTime, Runtime, Session, match_inputs
from fettle.runtimes._signal_stack import kept_signal_stack

if TYPE_CHECKING:
    from torch import nn

_FLOAT_OF = {"f32": "f32", "bf16": "bf16"}
_INTEGERS = {"i8": "int8", "u8": "int8"}


@dataclass(frozen=True, kw_only=True)
class OpenVino(Runtime):
    """OpenVINO's CPU plug-in, tuned for latency."""

    def supports(self) -> str | None:
        """Say what is missing here."""
        try:
            import openvino  # noqa: F401  (only whether it is there)
        except ImportError:
            return f"the package `openvino` is not installed: {INSTALL['openvino']}"
        bf16 = {"avx512_bf16", "amx_bf16", "arm_bf16"} & set(this_machine().isa)
        if self.precision == "bf16" and not bf16:
            return "this processor has no bf16 arithmetic: use openvino(precision='f32')"
        return None

    def build(self, model: Path | nn.Module, lowering: Sequence[str] = ()) -> Session:
        """Load the ONNX file `model`."""
        try:
            import openvino
        except ImportError as error:
            raise MissingError("the runtime `openvino`", INSTALL["openvino"]) from error
        assert isinstance(model, Path)
        graph = lowered(model, lowering)
        properties = {
            "INFERENCE_PRECISION_HINT": _FLOAT_OF[self.precision],
            "INFERENCE_NUM_THREADS": str(self.threads or usable_threads()),
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
        }
        try:
            core = openvino.Core()
            network = core.read_model(graph if isinstance(graph, bytes) else str(graph))
            with kept_signal_stack():
                compiled = core.compile_model(network, "CPU", properties)
            return OpenVinoSession(compiled, partial(_profiling, core, network, properties))
        except RuntimeError as error:
            raise ModelError(f"OpenVINO refuses the model: {_reason(error)}") from error


class OpenVinoSession(Session):
    """One compiled model; `profiling` compiles it once more, to tell the time of each layer."""

    def __init__(self, compiled: Any, profiling: Callable[[], Any]) -> None:
        self._compiled, self._local = compiled, threading.local()
        self._profiling = profiling
        self.inputs = tuple(_spec(port) for port in compiled.inputs)
        self.outputs = tuple(_spec(port) for port in compiled.outputs)

    def run(self, inputs: Arrays) -> Arrays:
        """Return the outputs by name, as copies of the engine's own memory."""
        inputs = match_inputs(self.inputs, inputs)
        request = self._request()
        request.infer(inputs, share_inputs=True)
        return {
            spec.name: np.array(request.get_output_tensor(index).data)
            for index, spec in enumerate(self.outputs)
        }

    def _request(self) -> Any:
        if not hasattr(self._local, "request"):
            self._local.request = self._compiled.create_infer_request()
        return self._local.request

    def layers(self) -> list[LayerPrecision]:
        """Read each layer's precision from the runtime model."""
        operators = self._compiled.get_runtime_model().get_ordered_ops()
        return [_layer(operator) for operator in operators]

    def layer_times(self, inputs: Arrays, runs: int = 20) -> list[LayerTime]:
        """Read the time of each layer from OpenVINO's own counters."""
        inputs = match_inputs(self.inputs, inputs)
        with kept_signal_stack():
            request = self._profiling().create_infer_request()
            found = [_times(request, inputs) for _ in range(runs)]
            del request
        medians = np.median([[time.ms for time in times] for times in found], axis=0)
        return [replace(t, ms=float(ms)) for t, ms in zip(found[0], medians, strict=True)]

    def close(self) -> None:
        """Drop the compiled model and this thread's request."""
        with kept_signal_stack():
            self._local = threading.local()
            self._compiled = None

    def __del__(self) -> None:
        self.close()


def _profiling(core: Any, network: Any, properties: dict[str, str]) -> Any:
    return core.compile_model(network, "CPU", {**properties, "PERF_COUNT": "YES"})


def _times(request: Any, inputs: Arrays) -> list[LayerTime]:
    request.infer(inputs, share_inputs=True)
    return [
        LayerTime(info.node_name, info.node_type, 1000 * info.real_time.total_seconds())
        for info in request.get_profiling_info()
    ]


def _spec(port: Any) -> TensorSpec:
    shape = tuple(
        dimension.get_length() if dimension.is_static else -1 for dimension in port.partial_shape
    )
    return TensorSpec(port.any_name, np.dtype(port.element_type.to_dtype()).name, shape)


def _layer(operator: Any) -> LayerPrecision:
    info = operator.get_rt_info()
    kind, precision = str(info["layerType"].value), str(info["runtimePrecision"].value)
    return LayerPrecision(
        operator.get_friendly_name(),
        kind,
        _INTEGERS.get(precision, precision),
        origins=tuple(name for name in str(info["originalLayersNames"].value).split(",") if name),
    )


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
