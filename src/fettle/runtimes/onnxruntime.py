"""onnxruntime on the CPU.

Floating-point layers run in f32. INT8 is fast on x86 only after a lowering of the master, which
`build` applies when it is named. Sessions are thread-safe.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import onnxruntime as ort

from fettle.core.arrays import Arrays, TensorSpec
from fettle.core.errors import InputError, ModelError
from fettle.core.knobs import Choice
from fettle.core.machine import usable_threads
from fettle.runtimes import _graphs
from fettle.runtimes._cache import LARGEST, Cache, key_of
from fettle.runtimes._lowering import Source
from fettle.runtimes._matching import Matcher
from fettle.runtimes._ort_layers import layers_in, shapes_in, with_names
from fettle.runtimes._refusal import refusal
from fettle.runtimes._runtime import LayerPrecision, LayerTime, Runtime, Session, match_inputs

if TYPE_CHECKING:
    from torch import nn

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int16)": "int16",
    "tensor(int8)": "int8",
    "tensor(uint64)": "uint64",
    "tensor(uint32)": "uint32",
    "tensor(uint16)": "uint16",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}
_ENGINE = "onnxruntime"


@dataclass(frozen=True, kw_only=True)
class OnnxRuntime(Runtime):
    """onnxruntime's CPU execution provider."""

    goal: Annotated[
        str,
        Choice("latency", "shared", "throughput"),
        "all threads for one run, waiting busily for the next; or asleep meanwhile, where other"
        " work shares the processors; or one thread for each of several runs at once",
    ] = "latency"
    cached: Annotated[
        bool,
        Choice(False, True),
        "keep what was optimized on disk: a faster start for what is lowered",
    ] = False

    def build(self, model: Path | nn.Module, lowering: Sequence[str] = ()) -> Session:
        """Load the ONNX file `model`."""
        if self.precision != "f32":
            raise ModelError(
                f"onnxruntime computes floating-point layers in f32 on a CPU, not in"
                f" {self.precision}: use `openvino(precision='{self.precision}')`"
            )
        assert isinstance(model, Path)
        source = Source(model, tuple(lowering))
        loaded = self._kept(source) if self.cached else _load(source.graph(), self._options())
        callers = (self.threads or usable_threads()) if self.goal == "throughput" else 1
        return OrtSession(loaded, source, self._options, callers)

    def _kept(self, source: Source) -> ort.InferenceSession:
        """Load what was optimized before; optimize and keep it where there is nothing yet."""
        options, cache = self._options(), Cache(_ENGINE)
        key = key_of(source, f"{_ENGINE} {ort.__version__}", options.intra_op_num_threads)
        found = cache.kept(key) if key else None
        if found is not None:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
            return _load(found, options)
        graph = source.graph()
        if key is None or _bytes_of(graph) > LARGEST:
            return _load(graph, options)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "optimized.onnx"
            options.optimized_model_filepath = str(path)
            loaded = _load(graph, options)
            cache.keep(key, path.read_bytes())
        return loaded

    def _options(self) -> ort.SessionOptions:
        options = ort.SessionOptions()
        threads = self.threads or usable_threads()
        options.intra_op_num_threads = 1 if self.goal == "throughput" else threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        if self.goal == "shared":
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Idle pools must not spin while another engine is being measured in the same process.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        return options


class OrtSession(Session):
    """One loaded model; `options` makes the same options afresh."""

    def __init__(
        self,
        loaded: ort.InferenceSession,
        source: Source,
        options: Callable[[], ort.SessionOptions],
        callers: int = 1,
    ) -> None:
        self._session: ort.InferenceSession | None = loaded
        self._source, self._options, self.callers = source, options, callers
        self.inputs = tuple(_spec(value) for value in loaded.get_inputs())
        self.outputs = tuple(_spec(value) for value in loaded.get_outputs())
        self._names = [spec.name for spec in self.outputs]
        self._match = Matcher(self.inputs)

    def run(self, inputs: Arrays) -> Arrays:
        """Return the outputs by name.

        Raises:
            InputError: an input is missing, unknown, or of another type or shape; or the session
                was closed.
            ModelError: onnxruntime can't compute an operator of the model for these inputs.
        """
        matched = self._match(inputs)
        session = self._session
        if session is None:
            raise InputError("this session was closed: build the model anew")
        try:
            return dict(zip(self._names, session.run(self._names, matched), strict=True))
        except Exception as error:  # onnxruntime's exception classes have no public base
            raise refusal(_ENGINE, error, self._source.model) from error

    def layers(self) -> list[LayerPrecision]:
        """Read the precision of each layer from the graph as onnxruntime optimized it."""
        with tempfile.TemporaryDirectory() as folder:
            path, options = Path(folder) / "optimized.onnx", self._options()
            options.optimized_model_filepath = str(path)
            _weights_apart(options)
            model = _named(self._source.graph(), options)
            _load(model, options)
            return layers_in(_graphs.read(path), shapes_in(_graphs.read(model)))

    def layer_times(self, inputs: Arrays, runs: int = 20) -> list[LayerTime]:
        """Read the time of each kernel from onnxruntime's own profile of a second session."""
        inputs = match_inputs(self.inputs, inputs)
        with tempfile.TemporaryDirectory() as folder:
            options = self._options()
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "profile")
            session = _load(_named(self._source.graph(), options), options)
            for _ in range(runs):
                session.run(None, inputs)
            events = json.loads(Path(session.end_profiling()).read_text())
        return _times(events)

    def close(self) -> None:
        """Drop the session; runs that other threads have begun come to their end."""
        self._session = None


def _load(model: Path | bytes, options: ort.SessionOptions) -> ort.InferenceSession:
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exception classes have no public base
        raise refusal(_ENGINE, error, model) from error


def _bytes_of(graph: Path | bytes) -> int:
    return len(graph) if isinstance(graph, bytes) else graph.stat().st_size


def _weights_apart(options: ort.SessionOptions) -> None:
    """Let an optimized graph be written with its weights apart, so that only the graph is read."""
    key = "session.optimized_model_external_initializers_file_name"
    options.add_session_config_entry(key, "weights.bin")


def _named(model: Path | bytes, options: ort.SessionOptions) -> Path | bytes:
    """Return a graph in which every node bears a name, for onnxruntime names them each time anew.

    Weights that lie beside the file stay there.
    """
    graph = _graphs.read(model)
    if not with_names(graph):
        return model
    if isinstance(model, Path):
        key = "session.model_external_initializers_file_folder_path"
        options.add_session_config_entry(key, str(model.parent.resolve()))
    return bytes(graph.SerializeToString())


def _spec(value: ort.NodeArg) -> TensorSpec:
    if value.type not in _DTYPES:
        raise ModelError(
            f"`{value.name}` is a {value.type}, which no numpy array holds: {_ENGINE} runs models"
            f" here whose inputs and outputs are {', '.join(sorted(set(_DTYPES.values())))}"
        )
    shape = tuple(d if isinstance(d, int) else -1 for d in value.shape)
    return TensorSpec(value.name, _DTYPES[value.type], shape)


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
