"""ONNX export through `torch.onnx.export(dynamo=True)`: dynamic batch, checked, compared."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnx_ir as ir
import torch
from torch import nn
from torch.export import Dim
from torch.fx import GraphModule
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.onnx import ONNXProgram

from fettle.core.arrays import repeat_to
from fettle.core.errors import MissingError, ModelError
from fettle.core.files import replacing_folder
from fettle.core.shelf import INSTALL
from fettle.export._parity import Parity, ParityLimits, check_parity
from fettle.tasks import Task

OPSET = 20
# A protobuf file can't pass 2 GiB; past this many bytes weights go beside the graph.
EXTERNAL_FROM_BYTES = 1_500_000_000
_EXAMPLES = 2  # a batch of 1 would be taken for a constant


def export_onnx(module: nn.Module, task: Task, folder: Path, name: str = "model.onnx") -> Parity:
    """Write `folder/name` (and `name.data` beside it when it is large), and prove it.

    The graph has the task's input names, one output `logits`, a free batch dimension and constants
    folded; it passed the ONNX checker, and its outputs were compared with the module's.

    Raises:
        MissingError: a package that the exporter needs is not installed.
        ModelError: the module can't be exported.
        ParityError: the graph computes something else than the module.
    """
    if not isinstance(module, GraphModule):
        module.eval()
    with replacing_folder(folder) as temporary:
        path = temporary / name
        quantized = _write(module, task, path)
        limits = ParityLimits.quantized() if quantized else ParityLimits()
        return check_parity(module, path, task, limits)


def _write(module: nn.Module, task: Task, path: Path) -> bool:
    """Export to `path`; return whether the graph is quantized."""
    inputs = repeat_to(task.example_inputs(_EXAMPLES), _EXAMPLES)  # the task may have one alone
    tensors = tuple(torch.from_numpy(array) for array in inputs.values())
    _check_runs(module, tensors)
    try:
        program = _traced(module, tensors, list(inputs), task)
    except ModuleNotFoundError as error:
        raise MissingError(f"the export to ONNX ({error})", INSTALL["onnxscript"]) from error
    except Exception as error:  # the exporter raises whatever the model's own code provokes
        raise ModelError(
            f"the model can't be exported to ONNX: {_first_line(error)}. An operator that ONNX"
            " lacks, or a branch on data, is the usual cause"
        ) from error
    _strip(program.model)
    large = _tensor_bytes(program.model) > EXTERNAL_FROM_BYTES
    ir.save(program.model, path, external_data=f"{path.name}.data" if large else None)
    onnx.checker.check_model(path, full_check=True)
    return any(node.op_type == "QuantizeLinear" for node in program.model.graph)


def _traced(
    module: nn.Module, tensors: tuple[torch.Tensor, ...], names: list[str], task: Task
) -> ONNXProgram:
    """Trace the module; once more with attention written out, where its fused form won't do.

    The fused kernel lays its output out in another order, of which some models (MaxViT) then take
    views that the exporter can't express.
    """

    def trace() -> ONNXProgram:
        program = torch.onnx.export(
            module,
            tensors,
            dynamo=True,
            opset_version=OPSET,
            input_names=names,
            output_names=["logits"],
            dynamic_shapes=_free(task),
            verbose=False,
        )
        assert program is not None
        return program

    with _quiet():
        try:
            return trace()
        except Exception as error:  # whatever class, its text tells
            if "Cannot view a tensor" not in str(error.__cause__ or error):
                raise
        with sdpa_kernel(SDPBackend.MATH):
            return trace()


@torch.no_grad()
def _check_runs(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    """Raise ModelError unless the module makes finite numbers of the inputs.

    What is wrong there would come out as a fault of the exporter.
    """
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    try:
        outputs = module(*(tensor.to(device) for tensor in inputs))
    except Exception as error:  # a model's own code raises what it likes
        given = ", ".join(f"{t.dtype} {tuple(t.shape)}".removeprefix("torch.") for t in inputs)
        raise ModelError(
            f"the model can't take the task's inputs ({given}): {_first_line(error)}; give the"
            " model and the data that belong together"
        ) from error
    if isinstance(outputs, torch.Tensor) and not bool(torch.isfinite(outputs).all()):
        raise ModelError(
            "the model's outputs on example inputs are NaN or infinite before anything is done to"
            " it; load sound weights, and data without such values"
        )


def _free(task: Task) -> tuple[dict[int, Dim], ...]:
    """Return the free dimensions of each input: the batch, and whatever the signature leaves."""
    return tuple(
        {
            axis: Dim("batch" if axis == 0 else f"free{axis}", min=1)
            for axis, size in enumerate(spec.shape)
            if size < 0
        }
        for spec in task.signature.inputs
    )


def _strip(model: ir.Model) -> None:
    """Remove the exporter's notes (stack traces, machine paths): they outweigh a small model."""
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.doc_string = model.graph.doc_string = None
    for node in model.graph:
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()


def _tensor_bytes(model: ir.Model) -> int:
    tensors = (value.const_value for value in model.graph.initializers.values())
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def _first_line(error: Exception) -> str:
    cause = error.__cause__ or error
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0]


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's deprecation chatter; errors still come through."""
    names = ("torch.onnx", "torch.export", "torch.fx", "onnxscript", "onnx_ir")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
