"""OpenVINO on the CPU.

The precision of floating-point layers is pinned: left alone, OpenVINO silently computes in bf16
where the processor has it. A Q/DQ master runs in INT8 as it is. Sessions are thread-safe: each run
has a request of its own.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from fettle.core.arrays import Arrays, TensorSpec
from fettle.core.errors import MissingError, ModelError
from fettle.core.knobs import Choice
from fettle.core.machine import this_machine, usable_threads
from fettle.core.shelf import INSTALL
from fettle.runtimes._cache import Cache, key_of
from fettle.runtimes._lowering import Source
from fettle.runtimes._matching import Matcher
from fettle.runtimes._openvino_requests import Requests
from fettle.runtimes._refusal import refusal
from fettle.runtimes._runtime import LayerPrecision, LayerTime, Runtime, Session, match_inputs
from fettle.runtimes._signal_stack import kept_signal_stack

if TYPE_CHECKING:
    from torch import nn

_FLOAT_OF = {"f32": "f32", "bf16": "bf16"}
_INTEGERS = {"i8": "int8", "u8": "int8", "i4": "int4", "u4": "int4"}
_FLOATS = {"f32", "f16", "bf16", "f64"}
_ENGINE = "OpenVINO"


@dataclass(frozen=True, kw_only=True)
class OpenVino(Runtime):
    """OpenVINO's CPU plug-in, tuned for latency unless it is told otherwise."""

    goal: Annotated[
        str,
        Choice("latency", "throughput"),
        "all threads for one run at a time, or several streams for several runs at once",
    ] = "latency"
    cached: Annotated[
        bool,
        Choice(False, True),
        "keep what was compiled on disk: a faster start for what is lowered",
    ] = False

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
        source = Source(model, tuple(lowering))
        compiler = _Compiler(openvino.Core(), source, self._properties())
        try:
            with kept_signal_stack():
                compiled = self._kept(compiler) if self.cached else compiler.compile()
            return OpenVinoSession(compiled, compiler)
        except RuntimeError as error:
            raise refusal(_ENGINE, error, model) from error

    def _properties(self) -> dict[str, str]:
        streams = {"NUM_STREAMS": "1"} if self.goal == "latency" else {}
        return {
            "INFERENCE_PRECISION_HINT": _FLOAT_OF[self.precision],
            "INFERENCE_NUM_THREADS": str(self.threads or usable_threads()),
            "PERFORMANCE_HINT": self.goal.upper(),
            **streams,
        }

    def _kept(self, compiler: _Compiler) -> Any:
        """Load what was compiled before; compile and keep it where there is nothing yet."""
        import openvino

        cache = Cache(self.name())
        key = key_of(compiler.source, f"{_ENGINE} {openvino.__version__}", compiler.properties)
        found = cache.kept(key) if key else None
        if found is not None:
            return compiler.load(found)
        compiled = compiler.compile()
        if key is not None:
            stream = io.BytesIO()
            compiled.export_model(stream)
            cache.keep(key, stream.getvalue())
        return compiled


@dataclass(frozen=True)
class _Compiler:
    """An OpenVINO core, and what it is to compile, and how."""

    core: Any
    source: Source
    properties: dict[str, str]

    def compile(self, **more: str) -> Any:
        """Return the compiled model."""
        return self.core.compile_model(self.network(), "CPU", {**self.properties, **more})

    def network(self) -> Any:
        """Return the model as it was read, to be asked about shapes."""
        graph = self.source.graph()
        return self.core.read_model(graph if isinstance(graph, bytes) else str(graph))

    def load(self, exported: bytes) -> Any:
        """Return a model that was compiled before."""
        return self.core.import_model(io.BytesIO(exported), "CPU", self.properties)


class _Shapes:
    """Tries each new set of input shapes on the uncompiled model before it is run.

    On one thread OpenVINO 2026.4 swallows an error of shapes inside a graph, such as a Reshape to a
    fixed batch, and answers with what was in memory, often an earlier answer. With more threads it
    raises.
    """

    def __init__(self, compiler: _Compiler, specs: Sequence[TensorSpec]) -> None:
        self._compiler, self._seen = compiler, set[tuple[tuple[int, ...], ...]]()
        free = any(-1 in spec.shape for spec in specs)
        self._needed = free and compiler.properties["INFERENCE_NUM_THREADS"] == "1"

    def check(self, arrays: Sequence[np.ndarray]) -> None:
        """Raise RuntimeError, as the engine should, when the graph can't take these shapes."""
        if not self._needed:
            return
        shapes = tuple(array.shape for array in arrays)
        if shapes in self._seen:
            return
        network = self._compiler.network()
        network.reshape({index: list(shape) for index, shape in enumerate(shapes)})
        self._seen.add(shapes)


class OpenVinoSession(Session):
    """One compiled model; `compiler` compiles it once more, to tell the time of each layer."""

    def __init__(self, compiled: Any, compiler: _Compiler) -> None:
        self._requests, self._compiler = Requests(compiled), compiler
        self.callers = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        self.inputs = tuple(_spec(port) for port in compiled.inputs)
        self.outputs = tuple(_spec(port) for port in compiled.outputs)
        self._names = [spec.name for spec in self.outputs]
        self._match = Matcher(self.inputs)
        self._shapes = _Shapes(compiler, self.inputs)

    def run(self, inputs: Arrays) -> Arrays:
        """Return the outputs by name, as copies of the engine's own memory.

        Raises:
            InputError: an input is missing, unknown, or of another type or shape; or the session
                was closed.
            ModelError: OpenVINO can't compute an operator of the model for these inputs.
        """
        matched = self._match(inputs)
        arrays = [matched[spec.name] for spec in self.inputs]
        try:
            self._shapes.check(arrays)
            return dict(zip(self._names, self._requests.run(arrays), strict=True))
        except RuntimeError as error:
            raise refusal(_ENGINE, error, self._compiler.source.model) from error

    def layers(self) -> list[LayerPrecision]:
        """Read each layer's precision from the runtime model."""
        operators = self._requests.compiled().get_runtime_model().get_ordered_ops()
        return [_layer(operator) for operator in operators]

    def layer_times(self, inputs: Arrays, runs: int = 20) -> list[LayerTime]:
        """Read the time of each layer from OpenVINO's own counters.

        What was fused into another layer is there with no time.
        """
        inputs = match_inputs(self.inputs, inputs)
        with kept_signal_stack():
            timed = self._compiler.compile(PERF_COUNT="YES")
            names = dict(zip(_names(timed), _names(self._requests.compiled()), strict=True))
            request = timed.create_infer_request()
            found = [_times(request, inputs, names) for _ in range(runs)]
            del request, timed
        medians = np.median([[time.ms for time in times] for times in found], axis=0)
        return [replace(t, ms=float(ms)) for t, ms in zip(found[0], medians, strict=True)]

    def close(self) -> None:
        """Drop the compiled model; runs that other threads have begun come to their end."""
        self._requests.close()

    def __del__(self) -> None:
        if hasattr(self, "_requests"):
            self.close()


def _names(compiled: Any) -> list[str]:
    """Return the names of the layers; OpenVINO numbers some of them anew each time it compiles."""
    return [layer.get_friendly_name() for layer in compiled.get_runtime_model().get_ordered_ops()]


def _times(request: Any, inputs: Arrays, names: dict[str, str]) -> list[LayerTime]:
    request.infer(dict(inputs), share_inputs=True)
    return [
        LayerTime(
            names.get(info.node_name, info.node_name),
            info.node_type,
            1000 * info.real_time.total_seconds(),
        )
        for info in request.get_profiling_info()
    ]


def _spec(port: Any) -> TensorSpec:
    kind = port.element_type.get_type_name()
    if kind in ("bf16", "string"):
        raise ModelError(
            f"`{port.any_name}` is of type {kind}, which no numpy array holds: let the model take"
            " and return f32, and convert inside"
        )
    dtype = np.dtype(port.element_type.to_dtype()).name
    return TensorSpec(port.any_name, dtype, _shape(port.partial_shape))


def _shape(partial: Any) -> tuple[int, ...]:
    if partial.rank.is_dynamic:
        return ()
    return tuple(d.get_length() if d.is_static else -1 for d in partial)


def _layer(operator: Any) -> LayerPrecision:
    info = operator.get_rt_info()
    kind, kernel, stored = (
        str(info[key].value) for key in ("layerType", "primitiveType", "runtimePrecision")
    )
    # `jit_avx512_f32` computes in f32 what is stored in i8
    family, _, computed = kernel.rpartition("_")
    precision = computed if computed in _FLOATS and family not in ("unknown", "undef") else stored
    return LayerPrecision(
        operator.get_friendly_name(),
        kind,
        _INTEGERS.get(precision, precision),
        _shape(operator.get_output_partial_shape(0)) if operator.get_output_size() else (),
        origins=tuple(name for name in str(info["originalLayersNames"].value).split(",") if name),
    )
