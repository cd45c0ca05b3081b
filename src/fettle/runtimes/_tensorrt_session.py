"""An engine at work: own stream, own memory, a CUDA graph for each shape that comes."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict, defaultdict
from typing import Any

import numpy as np

from fettle.core.arrays import Arrays, TensorSpec
from fettle.core.errors import InputError, ModelError
from fettle.runtimes._runtime import LayerPrecision, LayerTime, Session, match_inputs
from fettle.runtimes._tensorrt_building import Log, Plan
from fettle.runtimes._tensorrt_cuda import Buffer, Cuda, Stream, Timer
from fettle.runtimes._tensorrt_layers import EngineLayer, precisions, read_layers
from fettle.runtimes._tensorrt_shaped import Shaped, Shapes

_WARM_MS = 200.0
_MOST_SHAPES = 8  # each holds a context with memory of its own; the one used longest ago goes


class TensorRtSession(Session):
    """A loaded engine. Calls are taken one at a time; each thread may make them."""

    def __init__(self, trt: Any, cuda: Cuda, engine: bytes, plan: Plan) -> None:
        self._trt, self._cuda, self._lock = trt, cuda, threading.Lock()
        cuda.use()
        self._log = Log()
        self._runtime = trt.Runtime(self._log.of(trt))
        self._engine = self._runtime.deserialize_cuda_engine(engine)
        if self._engine is None:
            raise ModelError(f"TensorRT can't load the engine: {self._log.last()}")
        self._stream = Stream(cuda)
        self._shaped: OrderedDict[Shapes, Shaped] = OrderedDict()
        self.inputs, self.outputs = self._specs(trt.TensorIOMode.INPUT), self._specs(None)
        self._largest = {s.name: plan.shapes(s.shape)[2] for s in self.inputs}
        self._buffers = self._reserve()

    def run(self, inputs: Arrays) -> Arrays:
        """Return the outputs by name."""
        inputs = self._checked(inputs)
        with self._lock:
            self._cuda.use()
            shaped = self._load(inputs)
            shaped.launch(self._stream)
            sizes = self._start_downloads(shaped)
            self._stream.wait()
            return {spec.name: self._output(spec, *sizes[spec.name]) for spec in self.outputs}

    def device_times(self, inputs: Arrays, runs: int = 1000) -> list[float]:
        """Return milliseconds that each run takes on the device, by events, without transfers.

        Warmed up for at least 200 ms.
        """
        inputs = self._checked(inputs)
        with self._lock:
            self._cuda.use()
            shaped = self._load(inputs)
            until = time.perf_counter() + _WARM_MS / 1000
            while time.perf_counter() < until:
                shaped.launch(self._stream)
                self._stream.wait()
            timer = Timer(self._cuda, self._stream)
            try:
                return [self._timed(shaped, timer) for _ in range(runs)]
            finally:
                timer.free()

    def layers(self) -> list[LayerPrecision]:
        """Read what each layer runs in from TensorRT's inspector."""
        return precisions(self.engine_layers())

    def engine_layers(self) -> list[EngineLayer]:
        """Return the layers with all that the inspector tells of them."""
        inspector = self._engine.create_engine_inspector()
        form = self._trt.LayerInformationFormat.JSON
        return read_layers(inspector.get_engine_information(form))

    def layer_times(self, inputs: Arrays, runs: int = 20) -> list[LayerTime]:
        """Read the time of each layer from TensorRT's profiler, which runs without a graph."""
        inputs = self._checked(inputs)
        spent: dict[str, list[float]] = defaultdict(list)
        with self._lock:
            self._cuda.use()
            shaped = self._load(inputs)
            shaped.context.profiler = _profiler(self._trt, spent)
            for _ in range(runs):
                shaped.enqueue(self._stream)
                self._stream.wait()
            self._drop(self._shapes_of(inputs))  # a context keeps a profiler that it was given
        kinds = {layer.name: layer.kind for layer in self.engine_layers()}
        return [LayerTime(n, kinds.get(n, ""), float(np.median(ms))) for n, ms in spent.items()]

    def close(self) -> None:
        """Give back the graphs, the memory, the stream and the engine."""
        if self._engine is None:
            return
        self._cuda.use()
        self._stream.wait()
        for shapes in list(self._shaped):
            self._drop(shapes)
        for buffer in self._buffers.values():
            buffer.free()
        self._stream.free()
        self._buffers = {}
        self._engine = self._runtime = None
        self._cuda.release()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # half made, or the interpreter is going down
            self.close()

    def _specs(self, mode: Any) -> tuple[TensorSpec, ...]:
        """Return the engine's inputs, or with None its outputs."""
        engine = self._engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        is_input = self._trt.TensorIOMode.INPUT
        wanted = [n for n in names if (engine.get_tensor_mode(n) == is_input) == (mode is not None)]
        return tuple(
            TensorSpec(
                name,
                np.dtype(self._trt.nptype(engine.get_tensor_dtype(name))).name,
                tuple(engine.get_tensor_shape(name)),
            )
            for name in wanted
        )

    def _checked(self, inputs: Arrays) -> Arrays:
        inputs = match_inputs(self.inputs, inputs)
        for name, largest in self._largest.items():
            shape = inputs[name].shape
            if any(have > most for have, most in zip(shape, largest, strict=True)) or 0 in shape:
                raise InputError(
                    f"input `{name}` of shape {list(shape)} is outside of what the engine was"
                    f" built for, up to {list(largest)}: build it with"
                    " `tensorrt(largest_batch=…, length=…)`"
                )
        return inputs

    def _reserve(self) -> dict[str, Buffer]:
        """Allocate all tensors for the largest shapes."""
        sizing = Shaped(self._engine, tuple(self._largest.items()), self._log)
        buffers = {}
        for spec in (*self.inputs, *self.outputs):
            shape = sizing.shape(spec.name)
            if min(shape, default=1) < 0:
                raise ModelError(
                    f"the output `{spec.name}` has a shape that depends on the data, which a CUDA"
                    " graph can't hold: run this model on another runtime"
                )
            size = max(1, int(np.prod(shape))) * np.dtype(spec.dtype).itemsize
            buffers[spec.name] = Buffer(self._cuda, size)
        sizing.free()
        return buffers

    def _load(self, inputs: Arrays) -> Shaped:
        """Bring the inputs to the device; return what runs their shapes."""
        for name in self._largest:
            array, buffer = np.ascontiguousarray(inputs[name]), self._buffers[name]
            buffer.host[: array.nbytes] = array.reshape(-1).view(np.uint8)
            buffer.upload(array.nbytes, self._stream.handle)
        shapes = self._shapes_of(inputs)
        if shapes not in self._shaped:
            shaped = Shaped(self._engine, shapes, self._log)
            addresses = {name: buffer.address for name, buffer in self._buffers.items()}
            shaped.ready(addresses, self._stream)
            self._shaped[shapes] = shaped
        self._shaped.move_to_end(shapes)
        if len(self._shaped) > _MOST_SHAPES:
            self._drop(next(iter(self._shaped)))
        return self._shaped[shapes]

    def _shapes_of(self, inputs: Arrays) -> Shapes:
        return tuple((name, inputs[name].shape) for name in self._largest)

    def _drop(self, shapes: Shapes) -> None:
        self._shaped.pop(shapes).free()

    def _timed(self, shaped: Shaped, timer: Timer) -> float:
        timer.start()
        shaped.launch(self._stream)
        timer.stop()
        return timer.milliseconds()

    def _start_downloads(self, shaped: Shaped) -> dict[str, tuple[tuple[int, ...], int]]:
        """Let the stream bring the outputs; return the shape and the bytes of each."""
        sizes = {}
        for spec in self.outputs:
            shape = shaped.shape(spec.name)
            size = int(np.prod(shape)) * np.dtype(spec.dtype).itemsize
            self._buffers[spec.name].download(size, self._stream.handle)
            sizes[spec.name] = (shape, size)
        return sizes

    def _output(self, spec: TensorSpec, shape: tuple[int, ...], size: int) -> np.ndarray:
        contents = self._buffers[spec.name].host[:size].copy()
        return contents.view(spec.dtype).reshape(shape)


def _profiler(trt: Any, spent: dict[str, list[float]]) -> Any:
    class Profiler(trt.IProfiler):  # type: ignore[misc]  # the module is not typed
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            spent[layer_name].append(ms)

    return Profiler()
