"""What the layers of an engine run in, from the JSON of TensorRT's engine inspector.

    {"Layers": [{"Name": "conv1", "LayerType": "CaskConvolution",
                 "Inputs": [{"Name": "x", "Dimensions": [1, 16, 32, 32],
                             "Format/Datatype": "Thirty-two wide … row major Int8 format"}],
                 "Outputs": [...], "Metadata": "[ONNX Layer: conv1]"}, ...]}

Layers are plain strings unless the engine was built with detailed profiling verbosity. Where
TensorRT compiled several operators into one (Myelin), a tensor has "Datatype" in its place.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from fettle.core.errors import CheckFailed
from fettle.runtimes._runtime import LayerPrecision

# The first that is named wins: "Int8" before the words that a format may hold too.
_WORDS = {
    "int8": ("Int8", "INT8"),
    "fp8": ("FP8", "Fp8"),
    "int4": ("Int4", "INT4"),
    "bf16": ("BF16", "BFloat16", "Bf16"),
    "f16": ("FP16", "Half", "half"),
    "f32": ("FP32", "Float", "float"),
    "i64": ("Int64", "INT64"),
    "i32": ("Int32", "INT32"),
    "boolean": ("Bool", "BOOL"),
}
_ONNX = re.compile(r"\[ONNX Layer: ([^\]]+)\]")


@dataclass(frozen=True)
class EngineLayer:
    """One layer of an engine.

    Attributes:
        name: TensorRT's name for it.
        kind: what it is, such as "CaskConvolution" or "kgen".
        reads: the types of its inputs.
        writes: the types of its outputs.
        shape: of its first output.
        nodes: the nodes of the ONNX graph that it does the work of.
    """

    name: str
    kind: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    shape: tuple[int, ...] = ()
    nodes: tuple[str, ...] = ()

    @property
    def precision(self) -> str:
        """What it computes in: the type of its first input, of its output where it has none."""
        return next(iter((*self.reads, *self.writes)), "unknown")


def read_layers(text: str) -> list[EngineLayer]:
    """Return the layers of an inspector's JSON.

    Raises:
        CheckFailed: it doesn't tell types, for the engine was built without.
    """
    layers = json.loads(text).get("Layers", [])
    if any(isinstance(layer, str) for layer in layers):
        raise CheckFailed(
            "the engine doesn't tell what its layers run in: it was built without detailed"
            " profiling verbosity; delete it and let fettle build it anew"
        )
    return [_layer(layer) for layer in layers]


def precisions(layers: list[EngineLayer]) -> list[LayerPrecision]:
    """Return the layers as every runtime tells them."""
    return [LayerPrecision(x.name, x.kind, x.precision, x.shape, x.nodes) for x in layers]


def check_precision(layers: list[EngineLayer], asked: str, products: frozenset[str]) -> None:
    """Refuse an engine that computes in another precision than its graph asks for.

    Args:
        layers: of the engine.
        asked: "int8", "f16" or "f32".
        products: names of the ONNX nodes (convolutions, matrix products) that are meant.

    Raises:
        CheckFailed: none of them, or fewer than half of those that the engine names, run so.
    """
    meant = [x for x in layers if products & set(x.nodes)]
    told = {node for x in meant for node in x.nodes} & products
    right = {node for x in meant if asked in x.reads for node in x.nodes} & products
    enough = len(right) * 2 >= len(told) if told else any(asked in x.reads for x in layers)
    if products and not enough:
        wrong = sorted(told - right)
        shown = f" ({', '.join(wrong[:5])})" if wrong else ""
        raise CheckFailed(
            f"TensorRT built an engine that doesn't run in {asked}, which its graph asks for:"
            f" {len(right)} of {len(told) or len(products)} products do{shown};"
            " `fettle inspect` shows what it reads otherwise than it is meant"
        )


def _layer(layer: dict[str, Any]) -> EngineLayer:
    inputs, outputs = layer.get("Inputs", []), layer.get("Outputs", [])
    return EngineLayer(
        str(layer.get("Name", "")),
        str(layer.get("ParameterType") or layer.get("LayerType", "")),
        tuple(_type(tensor) for tensor in inputs),
        tuple(_type(tensor) for tensor in outputs),
        tuple(outputs[0].get("Dimensions", ())) if outputs else (),
        tuple(
            name.strip()
            for group in _ONNX.findall(str(layer.get("Metadata", "")))
            for name in group.split("\x1e")
        ),
    )


def _type(tensor: dict[str, Any]) -> str:
    keys = ("Datatype", "DataType", "Format/Datatype")
    text = next((str(tensor[key]) for key in keys if key in tensor), "")
    return next((kind for kind, words in _WORDS.items() if any(w in text for w in words)), text)
