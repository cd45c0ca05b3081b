"""An engine at one shape of its inputs: an execution context of its own, and its CUDA graph.

TensorRT's documentation asks for one context for each captured graph: a context that was given
other shapes in between may have changed what the graph reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fettle.core.errors import ModelError
from fettle.runtimes._tensorrt_building import Log
from fettle.runtimes._tensorrt_cuda import CudaError, Graph, Stream

Shapes = tuple[tuple[str, tuple[int, ...]], ...]


class Shaped:
    """What runs one combination of input shapes."""

    def __init__(self, engine: Any, shapes: Shapes, log: Log) -> None:
        self.context = engine.create_execution_context()
        if self.context is None:
            raise ModelError(f"TensorRT can't make room to run the engine: {log.last()}")
        self._log = log
        self._graph: Graph | None = None
        for name, shape in shapes:
            self.context.set_input_shape(name, shape)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor; -1 where it depends on the data."""
        return tuple(self.context.get_tensor_shape(name))

    def ready(self, addresses: Mapping[str, int], stream: Stream) -> None:
        """Say where the tensors are, run once, and capture a graph where that can be done."""
        for name, address in addresses.items():
            self.context.set_tensor_address(name, address)
        self.enqueue(stream)  # what it sets up on the first run can't be captured
        stream.wait()
        try:
            with stream.capture() as graph:
                self.enqueue(stream)
        except (CudaError, ModelError):  # loops and the like wait for the host
            return
        self._graph = graph

    def launch(self, stream: Stream) -> None:
        """Give a run to the stream: the graph, or plainly where there is none."""
        if self._graph is None:
            self.enqueue(stream)
        else:
            self._graph.launch()

    def enqueue(self, stream: Stream) -> None:
        """Give a run to the stream kernel by kernel."""
        if not self.context.execute_async_v3(stream.handle.value):
            raise ModelError(f"TensorRT can't run the engine: {self._log.last()}")

    def free(self) -> None:
        """Give back the graph and the context."""
        if self._graph is not None:
            self._graph.free()
        self._graph = self.context = None
