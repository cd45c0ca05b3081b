"""What the protocol's questions about a model are answered with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fettle.core.arrays import TensorSpec
from fettle.core.recipe import Recipe
from fettle.serve.model import Model
from fettle.serve.protocol.datatypes import name_of


def metadata(model: Model, versions: Sequence[str]) -> dict[str, Any]:
    """Return the protocol's model metadata."""
    return {
        "name": model.name,
        "versions": list(versions),
        "platform": f"{engine_of(model)}_onnx",
        **model.signature.describe(),
    }


def configuration(model: Model, delay_ms: float) -> dict[str, Any]:
    """Return the model's configuration in Triton's words; its clients ask for `max_batch_size`."""
    batched = model.signature.batched
    largest = model.warm.sizes.largest if batched else 0
    return {
        "name": model.name,
        "platform": f"{engine_of(model)}_onnx",
        "backend": engine_of(model),
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": largest,
        "input": [_tensor(spec, largest > 0) for spec in model.signature.inputs],
        "output": [_tensor(spec, largest > 0) for spec in model.signature.outputs],
        "dynamic_batching": {
            "preferred_batch_size": list(model.warm.sizes.proven),
            "max_queue_delay_microseconds": round(delay_ms * 1000),
        },
    }


def engine_of(model: Model) -> str:
    """Return the name of the runtime that the bundle was proven on."""
    runtime = Recipe.parse(f"@ {model.manifest.runtime or 'onnxruntime'}").runtime
    assert runtime is not None
    return runtime.name()


def _tensor(spec: TensorSpec, batched: bool) -> dict[str, Any]:
    name = name_of(spec.dtype)
    data_type = "TYPE_STRING" if name == "BYTES" else f"TYPE_{name}"
    return {"name": spec.name, "data_type": data_type, "dims": list(spec.shape[batched:])}
