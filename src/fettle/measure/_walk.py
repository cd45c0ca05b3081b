"""Walking through a graph piece by piece, stopping after named nodes to look and to change.

Unlike `graph/_execute.py`, which reads tensors of a graph that runs as it is, what a stop changes
is what the rest of the graph sees. Only tensors that are still needed are held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TypeProto, helper, numpy_helper

from fettle.core.arrays import Arrays
from fettle.core.errors import ModelError
from fettle.measure._graph import nodes

Visit = Callable[[onnx.NodeProto, dict[str, np.ndarray]], None]


class Walk:
    """A graph cut after each of the nodes at `stops`.

    These are indices into its nodes, each with the names of the tensors to be seen there beside
    the node's own outputs.

    Engines' optimizations are off, so that QuantizeLinear, DequantizeLinear and what stands between
    them compute what the specification says, on every processor.
    """

    def __init__(self, model: onnx.ModelProto, stops: Mapping[int, Sequence[str]]) -> None:
        self._model = model
        graph = model.graph
        self._held = {tensor.name: tensor for tensor in graph.initializer}
        cuts = sorted({*(stop + 1 for stop in stops), len(graph.node)})
        starts = [0, *cuts[:-1]]
        self._parts = [list(graph.node[a:b]) for a, b in zip(starts, cuts, strict=True)]
        self._seen = [{name for name in stops.get(cut - 1, ()) if name} for cut in cuts]
        self._sessions: dict[int, ort.InferenceSession] = {}
        wanted = {value.name for value in graph.output}
        self._needed_after: list[set[str]] = []
        for part, seen in zip(reversed(self._parts), reversed(self._seen), strict=True):
            self._needed_after.insert(0, set(wanted))
            wanted |= {*_reads(part), *seen}

    def __call__(self, inputs: Arrays, visit: Visit) -> dict[str, np.ndarray]:
        """Return the outputs by name; `visit` sees, and may change, the values at each stop.

        Raises:
            ModelError: onnxruntime refuses the graph or the inputs.
        """
        values = dict(inputs)
        for number, part in enumerate(self._parts):
            stop = part[-1]
            keep = {*self._needed_after[number], *self._seen[number], *stop.output}
            values.update(self._run(number, values, keep))
            for name in self._seen[number] & self._held.keys():
                values[name] = numpy_helper.to_array(self._held[name])
            visit(stop, values)
            values = {n: v for n, v in values.items() if n in self._needed_after[number]}
        return {value.name: values[value.name] for value in self._model.graph.output}

    def _run(
        self, number: int, values: dict[str, np.ndarray], keep: set[str]
    ) -> dict[str, np.ndarray]:
        part = self._parts[number]
        feeds = {name: values[name] for name in _reads(part) if name in values}
        try:
            if number not in self._sessions:
                self._sessions[number] = self._session(part, feeds, keep)
            session = self._sessions[number]
            names = [output.name for output in session.get_outputs()]
            return dict(zip(names, session.run(names, feeds), strict=True))
        except Exception as error:  # onnxruntime's exception classes have no public base
            raise ModelError(f"onnxruntime can't run the model: {error}") from error

    def _session(
        self, part: list[onnx.NodeProto], feeds: dict[str, np.ndarray], keep: set[str]
    ) -> ort.InferenceSession:
        made = {name for node in part for name in node.output if name}
        inputs = [_typed(name, array) for name, array in feeds.items()]
        outputs = [onnx.ValueInfoProto(name=name) for name in sorted(made & keep)]
        constants = [self._held[name] for name in _reads(part) if name in self._held]
        graph = helper.make_graph(part, "part", inputs, outputs, constants)
        model = helper.make_model(
            graph, opset_imports=self._model.opset_import, functions=self._model.functions
        )
        model.ir_version = self._model.ir_version
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )


def _reads(part: Sequence[onnx.NodeProto]) -> Iterator[str]:
    """Yield each name that the nodes read, once, those inside their bodies included."""
    whole = onnx.GraphProto(node=part)
    yield from dict.fromkeys(name for node in nodes(whole) for name in node.input if name)


def _typed(name: str, array: np.ndarray) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    return helper.make_value_info(name, TypeProto(tensor_type=TypeProto.Tensor(elem_type=kind)))
