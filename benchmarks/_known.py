"""A classification problem whose true accuracies are known, and pruning that takes a blink.

Inputs are normal. A random network says the class; a share of the labels is drawn anew. So how
often a model is right follows from P(class | input) alone, and fresh inputs give it as precisely
as one likes. The model is one layer of random features with a head that is fitted in closed form
(Rahimi & Recht 2008); narrowing it drops features and fits the head again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from fettle.core.knobs import Range
from fettle.graph import GraphPass
from fettle.measure import run_batch
from fettle.runtimes import Session
from fettle.tasks import ArrayExamples, Classification, Data, Options, Task

FEATURES, CLASSES, NOISE = 12, 4, 0.15
HIDDEN = 96
TRAIN, CALIBRATE = 1200, 64
BLOCK = 20_000
_W1, _B1, _W2, _B2 = "hidden.weight", "hidden.bias", "head.weight", "head.bias"


@dataclass(frozen=True)
class Law:
    """How inputs (n, 12) and classes are drawn."""

    seed: int

    def chances(self, x: np.ndarray) -> np.ndarray:
        """Return P(class | x), shape (n, classes)."""
        rng = np.random.default_rng([self.seed, 1])
        inner = rng.normal(size=(FEATURES, 8)) / FEATURES**0.5
        outer = rng.normal(size=(8, CLASSES))
        answer = (np.tanh(2 * x @ inner) @ outer).argmax(axis=1)
        return NOISE / CLASSES + (1 - NOISE) * np.eye(CLASSES)[answer]

    def draw(self, n: int, stream: int) -> tuple[np.ndarray, np.ndarray]:
        """Return `n` inputs and their classes; each `stream` is independent of the others."""
        rng = np.random.default_rng([self.seed, 2, stream])
        x = rng.normal(size=(n, FEATURES)).astype(np.float32)
        chosen = rng.random((n, 1)) > self.chances(x).cumsum(axis=1)
        return x, chosen.sum(axis=1).clip(0, CLASSES - 1)

    def fresh(self, n: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield `n` inputs that no split holds, in blocks, with P(class | x)."""
        rng = np.random.default_rng([self.seed, 3])
        for start in range(0, n, BLOCK):
            x = rng.normal(size=(min(BLOCK, n - start), FEATURES)).astype(np.float32)
            yield x, self.chances(x)


class KnownTask(Classification):
    """Examples of a law, split as any others are."""

    def __init__(self, seed: int, select: int, test: int) -> None:
        self.law = Law(seed)
        x, y = self.law.draw(TRAIN + CALIBRATE + select + test, stream=0)
        options = Options(select=select, test=test, calibrate=CALIBRATE)
        super().__init__(Data(ArrayExamples(x, y), CLASSES), seed=seed, options=options)


def true_drop(law: Law, base: Session, other: Session, n: int = 200_000) -> tuple[float, float]:
    """Return how much less often `other` is right than `base`, and the standard error of that."""
    differences = [
        np.take_along_axis(chances, answers(base, x), 1)[:, 0]
        - np.take_along_axis(chances, answers(other, x), 1)[:, 0]
        for x, chances in law.fresh(n)
    ]
    found = np.concatenate(differences)
    return float(found.mean()), float(found.std() / len(found) ** 0.5)


def answers(session: Session, x: np.ndarray) -> np.ndarray:
    """Return a session's classes, shape (n, 1)."""
    outputs = run_batch(session, {"input": x})
    return np.asarray(next(iter(outputs.values())).argmax(axis=1)[:, None])


def save_model(path: Path, task: Task, seed: int) -> None:
    """Write the whole network, its head fitted to the task's training examples, as ONNX."""
    rng = np.random.default_rng([seed, 4])
    weight = rng.normal(size=(FEATURES, HIDDEN)) / FEATURES**0.5
    bias = rng.uniform(-1, 1, HIDDEN)
    arrays = {_W1: weight, _B1: bias, **fitted(task, weight, bias)}
    nodes = [
        helper.make_node("MatMul", ["input", _W1], ["a"]),
        helper.make_node("Add", ["a", _B1], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("MatMul", ["c", _W2], ["d"]),
        helper.make_node("Add", ["d", _B2], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "known",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", FEATURES])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", CLASSES])],
        [numpy_helper.from_array(a.astype(np.float32), name) for name, a in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)


def fitted(task: Task, weight: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
    """Return the head by ridge regression on `train`: weight (hidden, classes), bias (classes,)."""
    (batch,) = task.batches("train", batch_size=task.size("train"))
    hidden = np.maximum(batch.inputs["input"] @ weight + bias, 0.0)
    hidden = np.column_stack([hidden, np.ones(len(hidden))])
    targets = np.eye(CLASSES)[batch.targets]
    gram = hidden.T @ hidden + 1.0 * np.eye(hidden.shape[1])
    solved = np.linalg.solve(gram, hidden.T @ targets)
    return {_W2: solved[:-1], _B2: solved[-1]}


@dataclass(frozen=True, kw_only=True)
class Narrow(GraphPass):
    """Drops hidden features at random and fits the head again."""

    plugin_name: ClassVar[str] = "graph.narrow"

    keep: Annotated[int, Range(2, HIDDEN, "features"), "that stay"] = HIDDEN
    draw: Annotated[int, Range(0, 1e6), "which ones stay"] = 0

    def apply(self, model: ir.Model, task: Task | None) -> ir.Model:
        """Rewrite the four constants."""
        assert task is not None
        rng = np.random.default_rng([self.draw, self.keep])
        kept = np.sort(rng.permutation(HIDDEN)[: self.keep])
        constants = model.graph.initializers
        weight, bias = (_array(constants[name]) for name in (_W1, _B1))
        arrays = {_W1: weight[:, kept], _B1: bias[kept]}
        arrays |= fitted(task, arrays[_W1], arrays[_B1])
        for name, array in arrays.items():
            value = constants[name]
            value.const_value = ir.tensor(array.astype(np.float32), name=name)
            value.shape = ir.Shape(array.shape)
        return model


def _array(value: ir.Value) -> np.ndarray:
    assert value.const_value is not None
    return np.asarray(value.const_value.numpy())
