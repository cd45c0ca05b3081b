"""What TensorRT would refuse, miscompute or leave in float, told without NVIDIA's libraries.

`lint` reads an ONNX file after TensorRT's rules for explicit quantization. Each rule was compared
with what NVIDIA's own parser and builder do (`tests/graph/test_tensorrt_rtx.py`, TensorRT for RTX
1.7). That a model is clean doesn't say that it builds: memory, shapes and plug-ins are the
builder's to judge.

Specification: NVIDIA, "Working with Quantized Types", TensorRT developer guide.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from fettle.core.errors import ModelError
from fettle.graph import _tensorrt_float, _tensorrt_rejected, _tensorrt_slower
from fettle.graph._opset import inline_functions
from fettle.graph._tensorrt_reading import WEIGHTED, Rule, Severity, label, nodes, operand

RULES: tuple[Rule, ...] = (
    *_tensorrt_rejected.RULES,
    *_tensorrt_float.RULES,
    *_tensorrt_slower.RULES,
)


@dataclass(frozen=True)
class Finding:
    """One place where a rule of TensorRT is broken.

    Attributes:
        rule: its name.
        severity: "rejected", "wrong", "float", "slower" or "note", worst first.
        node: name of the node or tensor.
        found: what was found there.
        mend: what to do.
    """

    rule: str
    severity: Severity
    node: str
    found: str
    mend: str

    def to_json(self) -> dict[str, str]:
        """Return the JSON form."""
        return asdict(self)


def lint(model: ir.Model | str | Path) -> list[Finding]:
    """Return what TensorRT would not do as the graph says, worst first.

    Args:
        model: a graph, which stays as it is, or the path of an ONNX file.

    Raises:
        ModelError: the file is missing, or no ONNX model.
    """
    graph = model.clone() if isinstance(model, ir.Model) else _load(Path(model))
    inline_functions(graph)
    graph = ShapeInferencePass(check_type=False, strict_mode=False)(graph).model
    return [
        Finding(rule.name, rule.severity, where, found, rule.mend)
        for rule in RULES
        for where, found in rule.look(graph)
    ]


def products(model: ir.Model) -> dict[str, set[str]]:
    """Return the convolutions and matrix products by what TensorRT should run them in.

    Keys are "int8", "f16" and "f32"; values are names as TensorRT's parser gives them to its
    layers.
    """
    typed = ShapeInferencePass(check_type=False, strict_mode=False)(model.clone()).model
    found: dict[str, set[str]] = {"int8": set(), "f16": set(), "f32": set()}
    floats = {node for rule in _tensorrt_float.RULES for node, _ in rule.look(typed)}
    for node in nodes(typed, *WEIGHTED):
        quantized = all(operand(value) for value in node.inputs[:2]) and label(node) not in floats
        half = node.outputs[0].dtype == ir.DataType.FLOAT16
        kind = "int8" if quantized else "f16" if half else "f32"
        found[kind].add(node.name or f"node_of_{node.outputs[0].name}")
    return found


def _load(path: Path) -> ir.Model:
    if not path.is_file():
        raise ModelError(f"the ONNX file {path} was expected and is not there")
    try:
        model = ir.load(path)
    except Exception as error:  # protobuf's errors and onnx_ir's have no base in common
        raise ModelError(f"{path} is no sound ONNX model ({error}); export it anew") from error
    if not model.graph.outputs:  # so are no bytes at all read
        raise ModelError(f"{path} is no sound ONNX model (it has no output); export it anew")
    return model
