"""PyTorch itself, eager or compiled: the reference that every claim is compared with.

Sessions may be called by many threads. The number of threads, and whether f32 may be rounded to
TF32, are set while a session runs and given back after.
"""

from __future__ import annotations

import copy
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import nn
from torch.fx import GraphModule

from fettle.core.arrays import Arrays, TensorSpec
from fettle.core.errors import FettleError, InputError, MissingError, ModelError
from fettle.core.knobs import Choice
from fettle.core.machine import usable_threads
from fettle.runtimes._runtime import LayerPrecision, LayerTime, Runtime, Session
from fettle.runtimes._torch_layers import Seen, observed, unseen
from fettle.runtimes._torch_modes import WAYS, Adapter
from fettle.runtimes._torch_settings import settings
from fettle.runtimes._torch_values import OUTPUT, Call, Inputs, arrays_of, specs_of

_COMPILER = "apt-get install g++ (torch.compile builds its kernels with a C++ compiler)"
_LOWER = {"bf16": torch.bfloat16, "f16": torch.float16}
_WARM_RUNS = 20


@dataclass(frozen=True, kw_only=True)
class PyTorch(Runtime):
    """A live torch module on the CPU, or on the device that its weights are on."""

    takes = "module"

    mode: Annotated[
        str,
        Choice("eager", "compiled", "aot", "cuda_graphs"),
        "as written, through torch.compile, through AOTInductor, or as captured CUDA graphs",
    ] = "eager"
    precision: Annotated[
        str,
        Choice("f32", "tf32", "bf16", "f16"),
        "what floating-point layers compute in (autocast); tf32 and f16 on a GPU only",
    ] = "f32"
    device: Annotated[
        str, Choice("as_is", "cpu", "cuda"), "where it runs; as_is: where its weights are"
    ] = "as_is"
    layout: Annotated[
        str,
        Choice("contiguous", "channels_last"),
        "how the weights of convolutions lie in memory; which is faster depends on the network",
    ] = "contiguous"

    def supports(self) -> str | None:
        """Say what is missing here."""
        if self.mode in ("compiled", "aot") and not (
            shutil.which("g++") or shutil.which("clang++")
        ):
            return f"no C++ compiler: {_COMPILER}"
        if self.device == "cpu" and self._needs_cuda():
            return f"{self._wish()} needs a GPU: give `device='cuda'`, or leave it out"
        if (self.device == "cuda" or self._needs_cuda()) and not torch.cuda.is_available():
            return f"{self._wish()} needs a GPU: {_no_cuda()}"
        return None

    def build(self, model: Path | nn.Module, lowering: Sequence[str] = ()) -> Session:
        """Wrap the module `model`, or a copy of it where `device` or `layout` ask for another."""
        del lowering
        if isinstance(model, Path):
            raise ModelError(
                f"the runtime `pytorch` runs torch modules, and {model.name} is an ONNX file:"
                " use onnxruntime or openvino"
            )
        missing = self.supports()
        if missing:
            raise MissingError(f"the runtime `{self}`", missing)
        return TorchSession(self._placed(model), self)

    def _placed(self, module: nn.Module) -> nn.Module:
        device = _device_of(module)
        wanted = device if self.device == "as_is" else torch.device(self.device)
        if self._needs_cuda() and wanted.type != "cuda":
            raise ModelError(
                f"{self._wish()} runs on a GPU, and the module is on {wanted.type}:"
                " give `device='cuda'`"
            )
        if wanted.type == device.type and self.layout == "contiguous":
            return module
        copied = copy.deepcopy(module).to(wanted)
        if self.layout == "channels_last":
            copied = copied.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        assert isinstance(copied, nn.Module)
        return copied

    def _needs_cuda(self) -> bool:
        return self.mode == "cuda_graphs" or self.precision in ("f16", "tf32")

    def _wish(self) -> str:
        """Return the knob that asks for a GPU."""
        if self.mode == "cuda_graphs":
            return "`mode='cuda_graphs'`"
        if self.precision in ("f16", "tf32"):
            return f"`precision='{self.precision}'`"
        return "`device='cuda'`"


class TorchSession(Session):
    """A module in eval mode; threads and TF32 are set while it runs."""

    def __init__(self, module: nn.Module, runtime: PyTorch) -> None:
        if not isinstance(module, GraphModule):
            module.eval()
        self._module, self._mode = module, runtime.mode
        self._lower = _LOWER.get(runtime.precision)
        self._tf32 = runtime.precision == "tf32"
        self._threads = runtime.threads or usable_threads()
        self._device = _device_of(module)
        self._taken = Inputs(module)
        self._seen: Arrays | None = None
        weights = [*module.parameters(), *module.buffers()]
        self._storages = {w.untyped_storage().data_ptr() for w in weights if _has_storage(w)}
        self._way = WAYS[runtime.mode](self._adapter)
        self.inputs = self._taken.specs
        self.outputs: tuple[TensorSpec, ...] = (TensorSpec(OUTPUT, "float32", (-1, -1)),)
        self._closed = False

    def run(self, inputs: Arrays) -> Arrays:
        """Return the outputs by name; what is compiled is compiled in the first call.

        Raises:
            InputError: an input is missing, unknown, or of another type or shape.
            ModelError: the model can't be compiled or captured.
        """
        if self._closed:
            raise InputError("this session was closed: build the model anew")
        call = self._call(inputs)
        with torch.inference_mode(), settings(self._threads, self._tf32):
            outputs = self._run(call)
            own = {t.untyped_storage().data_ptr() for t in call.tensors}
            arrays = arrays_of(outputs, self._storages | own)
        if self._seen is None:
            self._seen, self.outputs = _rows(inputs), specs_of(arrays)
        return arrays

    def device_times(self, inputs: Arrays, runs: int = 1000) -> list[float]:
        """Return milliseconds that each run takes on the GPU, by events; empty on a CPU."""
        if self._device.type != "cuda":
            return []
        call = self._call(inputs)
        with torch.inference_mode(), settings(self._threads, self._tf32):
            for _ in range(_WARM_RUNS):
                self._run(call)
            return [self._event_time(call) for _ in range(runs)]

    def layers(self) -> list[LayerPrecision]:
        """Return each layer, with the type and shape of what it made in one run as written.

        Compiled code keeps these types where layers meet, and fuses what lies between.
        The inputs are those of the first call, or ones of the task's shape; without either, the
        layers with weights are listed with what they are bound to compute in, without shapes.
        """
        example = self._seen or self._taken.example()
        if example is None:
            return unseen(self._module, self._lower)
        return list(self._observed(example, 1).layers.values())

    def layer_times(self, inputs: Arrays, runs: int = 20) -> list[LayerTime]:
        """Return the median time of each layer; empty for what is compiled, which fuses them."""
        if self._mode != "eager":
            return []
        self._observed(inputs, 2)
        return self._observed(inputs, runs).times(runs)

    def close(self) -> None:
        """Drop what was compiled; the module is its owner's."""
        self._closed = True
        self._way = _closed

    def _call(self, inputs: Arrays) -> Call:
        call = self._taken.call(inputs)
        if self._device.type == "cpu":
            return call
        return Call(tuple(t.to(self._device) for t in call.tensors), call.names)

    def _run(self, call: Call) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the compiler's advice isn't the user's business
                return self._way(call)
        except FettleError:
            raise
        except Exception as error:  # a model's own code raises what it likes
            raise self._refusal(call, error) from error

    def _refusal(self, call: Call, error: Exception) -> FettleError:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        given = ", ".join(f"{t.dtype} {list(t.shape)}".removeprefix("torch.") for t in call.tensors)
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            return ModelError(f"torch.compile can't compile the model: {line}; use mode='eager'")
        if self._mode in ("compiled", "aot") and isinstance(
            error, OSError | ImportError | EOFError
        ):
            from torch._inductor.runtime.cache_dir_utils import cache_dir

            return ModelError(
                f"torch.compile can't load what it compiled: {line}; if a file was damaged, delete"
                f" its cache {cache_dir()}, which it makes anew"
            )
        return InputError(f"the model can't take the inputs it got ({given}): {line}")

    def _adapter(self, call: Call, module: nn.Module | None = None) -> Adapter:
        return Adapter(module or self._module, call.names, self._device.type, self._lower)

    def _observed(self, inputs: Arrays, runs: int) -> Seen:
        call = self._call(inputs)
        with torch.inference_mode(), settings(self._threads, self._tf32):
            return observed(
                self._module,
                lambda module: self._adapter(call, module).forward(*call.tensors),
                len(call.tensors[0]) if call.tensors and call.tensors[0].dim() else 0,
                runs,
            )

    def _event_time(self, call: Call) -> float:
        event: Any = torch.cuda.Event
        start, end = event(enable_timing=True), event(enable_timing=True)
        stream = getattr(self._way, "stream", None) or torch.cuda.current_stream()
        start.record(stream)
        self._run(call)
        end.record(stream)
        end.synchronize()
        return float(start.elapsed_time(end))


def _closed(call: Call) -> Any:
    del call
    raise InputError("this session was closed: build the model anew")


def _rows(inputs: Arrays) -> Arrays:
    """Keep copies of the inputs of at most two examples, for a look at the layers."""
    return {name: array[:2].copy() if array.ndim else array for name, array in inputs.items()}


def _device_of(module: nn.Module) -> torch.device:
    weights = [*module.parameters(), *module.buffers()]
    return weights[0].device if weights else torch.device("cpu")


def _has_storage(tensor: torch.Tensor) -> bool:
    """Tell ordinary tensors from wrappers, such as those of quantized weights."""
    return type(tensor) in (torch.Tensor, nn.Parameter)


def _no_cuda() -> str:
    if torch.version.cuda is None:
        return (
            f"torch {torch.__version__} was built without CUDA; install a build of torch with CUDA"
            " (the selector at pytorch.org/get-started gives the line)"
        )
    return (
        f"torch {torch.__version__} finds no device for its CUDA {torch.version.cuda};"
        " `nvidia-smi` tells whether the driver sees one"
    )
