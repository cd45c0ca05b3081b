"""PyTorch itself, eager or compiled: the reference that every claim is compared with."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import nn

from fettle.core.arrays import Arrays, TensorSpec
from fettle.core.errors import MissingError, ModelError
from fettle.core.knobs import Choice
from fettle.core.machine import usable_threads
from fettle.runtimes._runtime import LayerPrecision, Runtime, Session

_COMPILER = "apt-get install g++ (torch.compile builds its kernels with a C++ compiler)"


@dataclass(frozen=True, kw_only=True)
class PyTorch(Runtime):
    """A live torch module on the CPU, or on the device that its weights are on."""

    takes = "module"

    mode: Annotated[str, Choice("eager", "compiled"), "as written, or through torch.compile"] = (
        "eager"
    )

    def supports(self) -> str | None:
        """Say what is missing here."""
        if self.mode == "compiled" and not (shutil.which("g++") or shutil.which("clang++")):
            return f"no C++ compiler: {_COMPILER}"
        return None

    def build(self, model: Path | nn.Module, lowering: Sequence[str] = ()) -> Session:
        """Wrap the module `model`."""
        del lowering
        if isinstance(model, Path):
            raise ModelError(
                f"the runtime `pytorch` runs torch modules, and {model.name} is an ONNX file:"
                " use onnxruntime or openvino"
            )
        missing = self.supports()
        if missing:
            raise MissingError("the runtime `pytorch(mode='compiled')`", missing)
        return TorchSession(model, self)


class TorchSession(Session):
    """A module in eval mode; the number of threads is set while it runs."""

    def __init__(self, module: nn.Module, runtime: PyTorch) -> None:
        if not isinstance(module, torch.fx.GraphModule):
            module.eval()
        self._module = module
        self._call: Callable[..., Any] = module
        if runtime.mode == "compiled":
            self._call = torch.compile(module)
        self._dtype = torch.bfloat16 if runtime.precision == "bf16" else None
        self._threads = runtime.threads or usable_threads()
        self._device = next((p.device for p in module.parameters()), torch.device("cpu"))
        self.inputs: tuple[TensorSpec, ...] = ()
        self.outputs = (TensorSpec("logits", "float32", (-1, -1)),)

    def run(self, inputs: Arrays) -> Arrays:
        """Return the outputs by name."""
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        tensors = [_tensor(array).to(self._device) for array in inputs.values()]
        autocast = torch.autocast(
            self._device.type, self._dtype or torch.bfloat16, enabled=self._dtype is not None
        )
        with torch.inference_mode(), autocast, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.compile's advice is not the user's business
            outputs = self._call(*tensors)
        return {"logits": outputs.float().cpu().numpy()}

    def layers(self) -> list[LayerPrecision]:
        """Return every module that computes, with the type of its weights."""
        weighted = [(n, m) for n, m in self._module.named_modules() if _own_weight(m) is not None]
        return [LayerPrecision(name, type(m).__name__, self._precision(m)) for name, m in weighted]

    def close(self) -> None:
        """Drop the compiled code; the module is its owner's."""
        self._call = self._module

    def _precision(self, module: nn.Module) -> str:
        weight = _own_weight(module)
        assert weight is not None
        names = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}
        return names.get(self._dtype or weight.dtype, str(weight.dtype))


def _tensor(array: np.ndarray) -> torch.Tensor:
    """Share the array's memory where torch can: not when it is read-only or strided backwards."""
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def _own_weight(module: nn.Module) -> torch.Tensor | None:
    return next((p for p in module.parameters(recurse=False)), None)
