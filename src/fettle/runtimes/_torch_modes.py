"""Ways to run a torch module: as written, compiled at first use or ahead, or as CUDA graphs."""

from __future__ import annotations

import tempfile
import threading
import types
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from fettle.core.errors import ModelError
from fettle.runtimes._torch_values import Call, tensors_of

Way = Callable[[Call], Any]
_FROZEN: dict[str, Any] = {"freezing": True}  # fold constants and lay weights out for the processor
_MOST_GRAPHS = 8
_WARM_RUNS = 3


class Adapter(nn.Module):
    """Calls a module with the tensors of a `Call`, in the type that it shall compute in."""

    def __init__(
        self, module: nn.Module, names: tuple[str | None, ...], device: str, lower: Any
    ) -> None:
        super().__init__()
        self.module, self.names = module, names
        self.device_type, self.lower = device, lower

    def forward(self, *tensors: Tensor) -> Any:
        """Return what the module does."""
        pairs = list(zip(self.names, tensors, strict=True))
        args = [tensor for name, tensor in pairs if name is None]
        named = {name: tensor for name, tensor in pairs if name is not None}
        if self.lower is None:
            return self.module(*args, **named)
        with torch.autocast(self.device_type, self.lower):
            return self.module(*args, **named)


Make = Callable[[Call], Adapter]


def eager(make: Make) -> Way:
    """Run as written."""
    made: dict[tuple[str | None, ...], Adapter] = {}

    def run(call: Call) -> Any:
        adapter = made.get(call.names)
        if adapter is None:
            adapter = made.setdefault(call.names, make(call))
        return adapter.forward(*call.tensors)

    return run


def compiled(make: Make) -> Way:
    """Run through torch.compile.

    The first batch size is compiled as it is, the second for any size. Torch counts compilations by
    code object, which all modules of a class share, and past eight it would go on eagerly without
    a word: so each session has a code object of its own, and the limit is an error.
    """
    made: dict[tuple[str | None, ...], Callable[..., Any]] = {}
    seen: set[Any] = set()
    lock = threading.Lock()

    def run(call: Call) -> Any:
        if (call.shapes, torch.get_num_threads()) in seen:
            return made[call.names](*call.tensors)
        with lock, torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
            if call.names not in made:
                made[call.names] = torch.compile(_own_code(make(call)), options=_FROZEN)
            outputs = made[call.names](*call.tensors)
        seen.add((call.shapes, torch.get_num_threads()))
        return outputs

    return run


def _own_code(adapter: Adapter) -> Callable[..., Any]:
    def forward(*tensors: Tensor) -> Any:
        return adapter.forward(*tensors)

    return types.FunctionType(
        forward.__code__.replace(co_name=f"session_{id(adapter)}"),
        forward.__globals__,
        closure=forward.__closure__,
    )


def ahead(make: Make) -> Way:
    """Run what AOTInductor compiles of the exported module, with a free batch dimension."""
    made: dict[Any, Callable[..., Any]] = {}
    lock = threading.Lock()

    def run(call: Call) -> Any:
        form = tuple((n, t.dtype, *t.shape[1:]) for n, t in zip(call.names, call.tensors))  # noqa: B905
        with lock:
            if form not in made:
                made[form] = _packaged(make(call), call)
        return made[form](*call.tensors)

    return run


def _packaged(adapter: Adapter, call: Call) -> Callable[..., Any]:
    batch = Dim("batch", min=1)
    doubled = tuple(torch.cat([t, t]) if t.dim() else t for t in call.tensors)
    free = tuple({0: batch} if t.dim() else {} for t in doubled)
    try:
        # 2 rows at least: a batch of 1 would be taken for a constant.
        program = torch.export.export(adapter, doubled, dynamic_shapes=(free,))
        with tempfile.TemporaryDirectory() as folder:
            path = torch._inductor.aoti_compile_and_package(
                program, package_path=str(Path(folder) / "model.pt2"), inductor_configs=_FROZEN
            )
            loaded: Callable[..., Any] = torch._inductor.aoti_load_package(path)
    except Exception as error:  # a model's own code, the exporter and the C++ compiler
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"AOTInductor can't compile the model: {line}; use"
            " `pytorch(mode='compiled')`, which takes what can't be exported"
        ) from error
    return loaded


class CudaGraphs:
    """One captured graph for each form of call, the latest eight; calls are taken one at a time.

    Warm-up and capture happen on one side stream, as libraries keep a handle for each stream.
    """

    def __init__(self, make: Make) -> None:
        self._make, self._lock = make, threading.Lock()
        self.stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._graphs: OrderedDict[Any, tuple[Any, Call, Any]] = OrderedDict()

    def __call__(self, call: Call) -> Any:
        """Return copies of the outputs."""
        with self._lock:
            graph, fixed, outputs = self._graph(call)
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                for into, tensor in zip(fixed.tensors, call.tensors, strict=True):
                    into.copy_(tensor)
                graph.replay()
                copies = torch.utils._pytree.tree_map_only(Tensor, torch.clone, outputs)
            self.stream.synchronize()
            return copies

    def _graph(self, call: Call) -> tuple[Any, Call, Any]:
        if call.shapes not in self._graphs:
            self._graphs[call.shapes] = self._captured(call)
            if len(self._graphs) > _MOST_GRAPHS:
                self._graphs.popitem(last=False)
        self._graphs.move_to_end(call.shapes)
        return self._graphs[call.shapes]

    def _captured(self, call: Call) -> tuple[Any, Call, Any]:
        adapter = self._make(call)
        fixed = Call(tuple(t.clone() for t in call.tensors), call.names)
        self.stream.wait_stream(torch.cuda.current_stream())
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.stream(self.stream):
                for _ in range(_WARM_RUNS):
                    adapter.forward(*fixed.tensors)
            self.stream.synchronize()
            # thread_local: other threads of a server may allocate meanwhile
            with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
                outputs = adapter.forward(*fixed.tensors)
        except RuntimeError as error:
            with suppress(RuntimeError):
                torch.cuda.synchronize()
            line = str(error).strip().splitlines()[0]
            raise ModelError(
                f"the model can't be captured as a CUDA graph: {line}; one that looks at its data"
                " on the host is the usual cause: use `pytorch(mode='compiled')`"
            ) from error
        assert tensors_of(outputs)
        return graph, fixed, outputs


WAYS: dict[str, Callable[[Make], Way]] = {
    "eager": eager,
    "compiled": compiled,
    "aot": ahead,
    "cuda_graphs": CudaGraphs,
}
