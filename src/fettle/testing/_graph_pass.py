"""The contract of a graph pass: ONNX in, the same function out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import TensorProto, helper

from fettle.core.errors import ModelError
from fettle.core.shelf import PASSES
from fettle.graph import GraphPass
from fettle.measure import agreement
from fettle.measure.lowering import LEAST_AGREEMENT, MOST_DIFFERENCE
from fettle.testing._plugin import PluginContract
from fettle.testing._sample import sample


class GraphPassContract(PluginContract):
    """What a graph pass keeps, tried on an FP32 model, its int8 forms and a trivial graph."""

    shelf = PASSES

    def rewritten(self, name: str) -> list[tuple[Path, ir.Model]]:
        """Return the models that the pass takes: each one's path, and what came out."""
        made = self.load(name)()
        assert isinstance(made, GraphPass)
        found = []
        for path in _models():
            try:
                found.append((path, made(ir.load(path), sample().task)))
            except ModelError:
                continue
        return found

    def test_takes_some_model(self, name: str) -> None:
        """The FP32 model, its int8 master or its weight-only form suits it."""
        assert self.rewritten(name), f"{name} refuses the FP32 model and every form of it"

    def test_refuses_or_keeps_a_graph_without_weights(self, name: str) -> None:
        """A model with nothing to rewrite is refused with a ModelError, or left valid."""
        made = self.load(name)()
        assert isinstance(made, GraphPass)
        try:
            result = made(ir.from_proto(_identity()), sample().task)
        except ModelError as error:
            assert name in str(error)  # noqa: PT017  (whether it raises is its own choice)
        else:
            onnx.checker.check_model(ir.to_proto(result), full_check=True)

    def test_keeps_the_interface(self, name: str) -> None:
        """Names, types and shapes of inputs and outputs are as before."""
        for path, result in self.rewritten(name):
            assert _interface(ir.to_proto(result)) == _interface(onnx.load(path))

    def test_passes_the_checker(self, name: str) -> None:
        """What comes out is valid ONNX, its inferred shapes too."""
        for _, result in self.rewritten(name):
            onnx.checker.check_model(ir.to_proto(result), full_check=True)

    def test_computes_the_same(self, name: str) -> None:
        """On real inputs it agrees with the model that went in as two int8 kernels do."""
        for path, result in self.rewritten(name):
            before, after = _run(onnx.load(path)), _run(ir.to_proto(result))
            found = agreement({"logits": before}, {"logits": after})
            assert found.top1 >= LEAST_AGREEMENT
            assert found.mean_abs <= MOST_DIFFERENCE * np.abs(before).mean()

    def test_is_deterministic(self, name: str) -> None:
        """The same model gives the same bytes."""
        first, second = (
            [ir.to_proto(model).SerializeToString(deterministic=True) for _, model in found]
            for found in (self.rewritten(name), self.rewritten(name))
        )
        assert first == second

    def test_unsuitable_models_are_named(self, name: str) -> None:
        """A refusal says which pass refuses."""
        made = self.load(name)()
        assert isinstance(made, GraphPass)
        for path in _models():
            try:
                made.requires(ir.load(path))
            except ModelError as error:
                assert name in str(error)  # noqa: PT017  (whether it raises is its own choice)


def _models() -> tuple[Path, ...]:
    return sample().onnx, sample().master, sample().weight_only


def _identity() -> onnx.ModelProto:
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 4]) for n in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def _interface(model: onnx.ModelProto) -> list[str]:
    return [str(value) for value in _values(model)]


def _values(model: onnx.ModelProto) -> Iterator[onnx.ValueInfoProto]:
    yield from model.graph.input
    yield from model.graph.output


def _run(model: onnx.ModelProto) -> np.ndarray:
    """Return the outputs as the graph is written: no engine's rewriting."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options)
    array: np.ndarray = session.run(None, sample().inputs())[0]
    return array
