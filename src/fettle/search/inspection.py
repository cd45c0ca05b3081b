"""`fettle inspect`: what is in an artifact, and what each of its layers really runs in."""

from __future__ import annotations

from collections import Counter
from typing import Any

from fettle import measure
from fettle.core.errors import FettleError, ModelError
from fettle.core.shelf import RUNTIMES
from fettle.measure.macs import macs_of, parameters_of
from fettle.measure.operators import operators_of
from fettle.measure.sparsity import sparsity_of
from fettle.runtimes import LayerPrecision, Runtime
from fettle.search._result import machine_json
from fettle.search.subject import Subject


def inspect(subject: Subject) -> dict[str, Any]:
    """Return the result of the contract.

    `layers` lists what computes, engine by engine, under the engine's own names, for engines fuse
    and rename; `precisions` counts them; `refused` says which runtime can't run the artifact.
    """
    layers: list[dict[str, Any]] = []
    counts: dict[str, dict[str, int]] = {}
    refused: dict[str, str] = {}
    for name in RUNTIMES.names():
        try:
            found = _layers(subject, name)
        except FettleError as error:
            refused[name] = str(error)
            continue
        counts[name] = dict(Counter(layer.precision for layer in found))
        layers += [
            {"name": x.name, "op": x.op, "shape": list(x.shape), "precision": {name: x.precision}}
            for x in found
        ]
    return {
        "subject": subject.name,
        "parameters": parameters_of(subject.path),
        "macs": _or_none(subject),
        "sparsity": sparsity_of(subject.path),
        "size_bytes": measure.onnx_bytes(subject.path),
        "operators": operators_of(subject.path),
        "precisions": counts,
        "layers": layers,
        "refused": refused,
        "lint": [],
        "machine": machine_json(),
    }


def _layers(subject: Subject, name: str) -> list[LayerPrecision]:
    runtime = RUNTIMES.make(name)
    assert isinstance(runtime, Runtime)
    model = subject.path if runtime.takes == "onnx" else subject.module
    if model is None:
        return []
    missing = runtime.supports()
    if missing:
        raise ModelError(missing)
    lowering = subject.lowering(runtime) if runtime.takes == "onnx" else ()
    session = runtime.build(model, lowering)
    try:
        return [layer for layer in session.layers() if layer.computes]
    finally:
        session.close()


def _or_none(subject: Subject) -> int | None:
    """Return the multiply-accumulates, or None where a free shape hides them."""
    try:
        return macs_of(subject.path, {k: (1, *v.shape[1:]) for k, v in subject.inputs.items()})
    except FettleError:
        return None
