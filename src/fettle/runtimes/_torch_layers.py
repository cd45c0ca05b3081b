"""What each layer of a module gets and makes, and how long it takes, seen by hooks."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node

from fettle.runtimes._runtime import LayerPrecision, LayerTime
from fettle.runtimes._torch_values import tensors_of

NAMES = {
    torch.float64: "f64",
    torch.float32: "f32",
    torch.bfloat16: "bf16",
    torch.float16: "f16",
    torch.int8: "int8",
    torch.uint8: "int8",
    torch.int32: "i32",
    torch.int64: "i64",
    torch.bool: "boolean",
}
_IDLE = (nn.Dropout, nn.Identity, nn.Flatten, nn.Unflatten)
_LOWERED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.RNNBase, nn.MultiheadAttention)


@dataclass
class Seen:
    """What was seen of each layer, by name: op, type and shape of its output, times.

    A first dimension as large as the batch is given as -1, for free.
    """

    batch: int
    layers: dict[str, LayerPrecision] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, name: str, op: str, output: Any, seconds: float) -> None:
        """Note one run of a layer."""
        tensors = tensors_of(output)
        if not tensors:
            return
        first = tensors[0]
        kind = NAMES.get(first.dtype, str(first.dtype).removeprefix("torch."))
        self.layers.setdefault(name, LayerPrecision(name, op, kind, self._shape(first)))
        self.seconds[name].append(seconds)

    def _shape(self, tensor: Tensor) -> tuple[int, ...]:
        free = tensor.shape[:1] == (self.batch,)
        return (-1, *tensor.shape[1:]) if free else tuple(tensor.shape)

    def times(self, runs: int) -> list[LayerTime]:
        """Return the time in one run of the model; a layer that it calls twice counts twice."""
        found = []
        for name, layer in self.layers.items():
            spent = np.array(self.seconds[name]).reshape(runs, -1).sum(1) * 1e3
            found.append(LayerTime(name, layer.op, float(np.median(spent))))
        return found


def observed(module: nn.Module, run: Callable[[nn.Module], Any], batch: int, runs: int = 1) -> Seen:
    """Call `run` with a module that tells what its layers do, `runs` times.

    The inputs are a batch of `batch`. A layer is a module that has weights of its own, or no
    modules inside; what a containing module computes between them has no line. Of a graph, each
    operator is one.
    """
    seen = Seen(batch)
    if isinstance(module, GraphModule):
        for _ in range(runs):
            run(_Steps(module, seen))
        return seen
    with _hooks(module, seen):
        for _ in range(runs):
            run(module)
    return seen


def unseen(module: nn.Module, lower: torch.dtype | None) -> list[LayerPrecision]:
    """Return the layers with weights and what they will compute in, before anything has run."""
    found = []
    for name, layer in module.named_modules():
        weight = next(layer.parameters(recurse=False), None)
        if weight is not None:
            lowers = lower is not None and isinstance(layer, _LOWERED)
            kind = lower if lowers else weight.dtype
            found.append(LayerPrecision(name, type(layer).__name__, NAMES.get(kind, str(kind))))  # type: ignore[arg-type]
    return found


def _is_layer(module: nn.Module) -> bool:
    if isinstance(module, _IDLE):
        return False
    own = any(True for _ in module.parameters(recurse=False))
    return own or not any(True for _ in module.children())


@contextmanager
def _hooks(module: nn.Module, seen: Seen) -> Any:
    watch = _Watch(seen)
    layers = [(name, layer) for name, layer in module.named_modules() if _is_layer(layer)]
    handles = [layer.register_forward_pre_hook(watch.before) for _, layer in layers]
    handles += [layer.register_forward_hook(partial(watch.after, name)) for name, layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Watch:
    """Notes what layers do when this thread calls them; others may run the same module."""

    def __init__(self, seen: Seen) -> None:
        self._seen, self._caller = seen, threading.get_ident()
        self._started: dict[nn.Module, float] = {}

    def before(self, layer: nn.Module, args: Any) -> None:
        if threading.get_ident() == self._caller:
            self._started[layer] = _now(args)

    def after(self, name: str, layer: nn.Module, args: Any, output: Any) -> None:
        if threading.get_ident() == self._caller:
            spent = _now(args) - self._started[layer]
            self._seen.add(name, type(layer).__name__, output, spent)


def _now(values: Any) -> float:
    """Return the time, once the device has done what it was asked."""
    if any(tensor.is_cuda for tensor in tensors_of(values)):
        torch.cuda.synchronize()
    return perf_counter()


class _Steps(nn.Module):
    """Runs a graph operator by operator."""

    def __init__(self, graph: GraphModule, seen: Seen) -> None:
        super().__init__()
        self._graph, self._seen = graph, seen

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Any:
        """Return what the graph does."""
        graph, seen = self._graph, self._seen
        names = [node.name for node in graph.graph.nodes if node.op == "placeholder"]
        ordered = [*args, *(kwargs[name] for name in names[len(args) :] if name in kwargs)]
        flat = not hasattr(graph.graph._codegen, "pytree_info")

        class Watcher(Interpreter):
            def run_node(self, n: Node) -> Any:
                start = perf_counter()
                result = super().run_node(n)
                if n.op in ("call_function", "call_module", "call_method"):
                    seen.add(n.name, _op_of(n), result, _now(ordered) - start)
                return result

        return Watcher(graph).run(*ordered, enable_io_processing=not flat)


def _op_of(node: Node) -> str:
    name = getattr(node.target, "__name__", str(node.target))
    return str(name).removesuffix(".default")
