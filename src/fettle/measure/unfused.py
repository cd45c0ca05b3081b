"""What quantization left unfused: layers meant for int8 that an engine runs in float, and why.

A layer is meant for int8 where the QDQ graph gives it a dequantized input or weight. An engine runs
it in int8 only if it can fuse the layer with the Q/DQ nodes around it; where it can't, it converts
to float, computes there, and converts back, which is often slower than no quantization at all. The
reason is read from the graph (`REASONS`); conversions that are left as layers of their own are
listed with the time that they take.

Example:
    runtime = OnnxRuntime(threads=1)
    found = unfused(path, runtime.build(path), "onnxruntime", inputs)
    for layer in found.layers:
        print(layer.node, layer.precision, layer.reason, layer.explanation)
    found.to_json()
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from fettle.core.arrays import Arrays
from fettle.core.errors import ModelError
from fettle.measure._graph import find_model
from fettle.measure._matching import longest, multiplies
from fettle.measure._reasons import PRODUCTS, REASONS, activations, dequantizer, reason_of
from fettle.measure.profile import Timed, joined
from fettle.runtimes import LayerPrecision, Session, lowered

_CONVERSIONS = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Cast", "Reorder",
                "ReorderInput", "ReorderOutput", "FakeQuantize", "Convert"}  # fmt: skip
# arithmetic that has integer kernels beside the products
_ARITHMETIC = {"Add", "Sub", "Mul", "Sigmoid", "HardSigmoid", "HardSwish", "Softmax", "AveragePool",
               "GlobalAveragePool", "ReduceMean", "LeakyRelu", "Gelu", "Tanh",
               "LayerNormalization"}  # fmt: skip
_LEFT = re.compile(r"lower_float\(nodes=(['\"])(.*?)\1")


@dataclass(frozen=True)
class Unfused:
    """A node meant for int8 that runs in `precision`; `reason` is a key of REASONS.

    `layer` and `ms` are the engine's layer that runs it, and its time where the engine tells.
    """

    node: str
    op: str
    layer: str
    precision: str
    reason: str
    ms: float | None = None

    @property
    def explanation(self) -> str:
        """The reason in words."""
        return REASONS[self.reason]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {**vars(self), "explanation": self.explanation}


@dataclass(frozen=True)
class Conversion:
    """A change of type or layout that runs as a layer of its own."""

    name: str
    op: str
    ms: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return dict(vars(self))


@dataclass(frozen=True)
class Leftovers:
    """What quantization left in float, and the conversions that it left to be done.

    `meant` is how many layers were meant for int8.
    """

    meant: int
    layers: tuple[Unfused, ...]
    conversions: tuple[Conversion, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "meant": self.meant,
            "layers": [layer.to_json() for layer in self.layers],
            "conversions": [conversion.to_json() for conversion in self.conversions],
        }


def unfused(
    model: str | Path,
    session: Session,
    engine: str,
    inputs: Arrays | None = None,
    lowering: Sequence[str] = (),
) -> Leftovers:
    """Return what of a QDQ model `session` runs in float although it was meant for int8.

    Nothing is listed for a model without Q/DQ, and for an engine that doesn't tell its layers.

    Args:
        model: the ONNX file, or bundle, before any lowering.
        session: built from it with `lowering`.
        engine: the runtime's name, such as "onnxruntime": reasons differ.
        inputs: one batch, to tell times too.
        lowering: the passes that the session was built with.

    Raises:
        ModelError: no readable ONNX.
    """
    path, engine = find_model(model), engine.partition("(")[0]
    master = _load(path)
    run = _lowered(path, lowering) if lowering else master
    left = {n.strip() for found in _LEFT.findall(" ".join(lowering)) for n in found[1].split(",")}
    layers = session.layers()
    timed = joined(layers, session.layer_times(inputs)) if inputs is not None else []
    timed = timed or [(layer, None) for layer in layers]
    meant = [node for node in master if is_meant(node)]
    if not layers:
        return Leftovers(len(meant), (), ())
    runs_in = _who_runs(timed, _names(master))
    after = {_name(node): node for node in run}
    found = []
    for node in meant:
        layer, ms = runs_in.get(_name(node), (None, None))
        if layer is not None and layer.precision not in ("int8", ""):
            purpose = str(node.outputs[0].name) in left
            why = "on purpose" if purpose else reason_of(after.get(_name(node), node), engine)
            found.append(Unfused(_name(node), node.op_type, layer.name, layer.precision, why, ms))
    return Leftovers(len(meant), tuple(found), _conversions(timed))


def is_meant(node: ir.Node) -> bool:
    """Say whether the Q/DQ around a node mean it for int8.

    A product, where any of its operands is dequantized; other arithmetic, where all that it reads
    is, and its result is quantized again.
    """
    if node.op_type in PRODUCTS:
        return any(dequantizer(value) is not None for value in node.inputs[:2])
    if node.op_type not in _ARITHMETIC:
        return False
    read = activations(node)
    readers = [usage.node for usage in node.outputs[0].uses()]
    again = bool(readers) and all(reader.op_type == "QuantizeLinear" for reader in readers)
    return again and bool(read) and all(dequantizer(value) is not None for value in read)


def _load(path: Path) -> ir.Graph:
    try:
        return ir.load(path).graph
    except Exception as error:  # protobuf's errors and onnx_ir's have no base in common
        raise ModelError(f"{path} is no sound ONNX model ({error}); export it anew") from error


def _lowered(path: Path, lowering: Sequence[str]) -> ir.Graph:
    found = lowered(path, lowering)
    if isinstance(found, Path):
        return _load(found)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "lowered.onnx"
        file.write_bytes(found)
        graph = ir.load(file)
        ir.external_data.load_to_model(graph)
    return graph.graph


def _name(node: ir.Node) -> str:
    return str(node.name or node.outputs[0].name)


def _names(graph: ir.Graph) -> dict[str, str]:
    found: dict[str, str] = {}
    for node in graph:
        for name in (_name(node), *(str(value.name) for value in node.outputs)):
            found.setdefault(name, _name(node))
    return found


def _who_runs(timed: Sequence[Timed], names: Mapping[str, str]) -> dict[str, Timed]:
    """Return the layer that runs each node; of several, the one that multiplies."""
    found: dict[str, Timed] = {}
    for layer, ms in timed:
        if not layer.computes:
            continue
        for name in (layer.name, *layer.origins):
            node = longest(name, names)
            if node is not None and (node not in found or _better(layer, found[node][0])):
                found[node] = (layer, ms)
    return found


def _better(layer: LayerPrecision, other: LayerPrecision) -> bool:
    return multiplies(layer.op) and not multiplies(other.op)


def _conversions(timed: Sequence[Timed]) -> tuple[Conversion, ...]:
    return tuple(Conversion(x.name, x.op, ms) for x, ms in timed if x.op in _CONVERSIONS)
