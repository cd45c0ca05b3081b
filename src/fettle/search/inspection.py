"""`fettle inspect`: what is in an artifact, and what each of its layers really runs in."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fettle import measure
from fettle.core.arrays import Arrays
from fettle.core.errors import FettleError, ModelError
from fettle.core.machine import Machine, this_machine, usable_threads
from fettle.core.progress import Reporter, Silent
from fettle.core.shelf import RUNTIMES
from fettle.graph.tensorrt_lint import lint
from fettle.measure.macs import macs_of, parameters_of
from fettle.measure.operators import operators_of
from fettle.measure.peaks import peaks_of
from fettle.measure.profile import profile
from fettle.measure.sparsity import sparsity_of
from fettle.measure.unfused import unfused
from fettle.runtimes import LayerPrecision, Runtime, Session
from fettle.search._layers import layers_of
from fettle.search._random_inputs import input_specs
from fettle.search._result import machine_json
from fettle.search._saturating import EXAMPLES, saturates_on, saturation_in
from fettle.search.subject import Subject

_RUNS = 20


@dataclass(frozen=True)
class Asked:
    """What is looked at beyond what costs nothing: `threads` 0 are all there are.

    Saturation is looked at without being asked where `machine`, by default this one, saturates.
    """

    profile: bool = False
    saturation: bool = False
    trtexec: bool = False
    threads: int = 0
    machine: Machine = field(default_factory=this_machine)


@dataclass(frozen=True)
class _Seen:
    """What one engine told."""

    layers: list[LayerPrecision]
    profile: dict[str, Any] | None
    unfused: dict[str, Any] | None


def inspect(
    subject: Subject, asked: Asked | None = None, progress: Reporter | None = None
) -> dict[str, Any]:
    """Return the result of the contract.

    `layers` has one row for each layer of the graph, with the precision that each engine runs it
    in; `engine_layers` has what engines tell of themselves, under their own names; `precisions`
    counts that; `unfused` says what each runs in float though it was meant for int8, and why;
    `refused` says which runtime can't run the artifact, and `lint` what TensorRT would refuse,
    miscompute or leave in float.

    Raises:
        FettleError: a torch model that can't be exported, or inputs that can't be made.
    """
    asked, watch = asked or Asked(), progress or Silent()
    path, inputs = subject.onnx, _one_batch(subject)
    seen: dict[str, _Seen] = {}
    refused: dict[str, str] = {}
    for name in RUNTIMES.names():
        watch.say(f"look into {name}")
        try:
            found = _look(subject, name, inputs, asked)
        except (FettleError, RuntimeError) as error:
            refused[name] = str(error)
            continue
        if found is not None:
            seen[name] = found
    told = {name: found.layers for name, found in seen.items()}
    layers = layers_of(path, inputs, told)
    return {
        "subject": subject.name,
        "parameters": parameters_of(path),
        "macs": _macs(subject),
        "sparsity": sparsity_of(path),
        "size_bytes": measure.onnx_bytes(path),
        "operators": operators_of(path),
        "precisions": {name: dict(Counter(x.precision for x in t)) for name, t in told.items()},
        "layers": [layer.to_json() for layer in layers],
        "engine_layers": {name: [_json(x) for x in t] for name, t in told.items()},
        "unfused": {name: found.unfused for name, found in seen.items() if found.unfused},
        "refused": refused,
        "lint": [finding.to_json() for finding in lint(path)],
        "profile": {name: found.profile for name, found in seen.items() if found.profile},
        "saturation": _saturation(subject, asked, watch),
        "trtexec": _trtexec(subject) if asked.trtexec else None,
        "machine": machine_json(),
    }


def _look(subject: Subject, name: str, inputs: Arrays, asked: Asked) -> _Seen | None:
    """Return what an engine tells, or None where it takes another kind of model."""
    runtime = RUNTIMES.make(name, threads=asked.threads)
    assert isinstance(runtime, Runtime)
    model = subject.path if runtime.takes == "onnx" else subject.module
    if model is None:
        return None
    missing = runtime.supports()
    if missing:
        raise ModelError(missing)
    lowering = subject.lowering(runtime) if runtime.takes == "onnx" else ()
    session = runtime.build(model, lowering)
    try:
        layers = [layer for layer in session.layers() if layer.computes]
        times = inputs if asked.profile else None
        left = None
        if subject.quantized and runtime.takes == "onnx":
            left = unfused(subject.path, session, name, times, lowering).to_json()
        return _Seen(layers, _profile(subject, session, inputs, asked), left)
    finally:
        session.close()


def _profile(
    subject: Subject, session: Session, inputs: Arrays, asked: Asked
) -> dict[str, Any] | None:
    if not asked.profile:
        return None
    peaks = peaks_of(asked.threads or usable_threads())
    return profile(subject.path, session, inputs, peaks, _RUNS).to_json()


def _one_batch(subject: Subject) -> Arrays:
    """Return one example, or the batch that the file is bound to."""
    specs = [spec for spec in input_specs(subject.path) if spec.name not in subject.held]
    fixed = [spec.shape[0] for spec in specs if spec.shape[:1] > (0,)]
    return subject.batch(min(fixed, default=1))


def _macs(subject: Subject) -> int | None:
    """Return the multiply-accumulates, or None where a free shape hides them."""
    try:
        return macs_of(subject.path, {k: v.shape for k, v in subject.batch(1).items()})
    except FettleError:
        return None


def _json(layer: LayerPrecision) -> dict[str, Any]:
    return {
        "name": layer.name,
        "op": layer.op,
        "precision": layer.precision,
        "shape": list(layer.shape),
    }


def _saturation(subject: Subject, asked: Asked, progress: Reporter) -> dict[str, Any] | None:
    """Return what saturates without VNNI; None where nobody asks, and without INT8 layers."""
    wanted = asked.saturation or saturates_on(asked.machine)
    if not (wanted and subject.quantized):
        return None
    progress.say("emulate the sums of a processor without VNNI")
    return saturation_in(subject.path, subject.batch(EXAMPLES))


def _trtexec(subject: Subject) -> dict[str, str]:
    """Return a command for each version; for a torch model first the `export` that it needs."""
    from fettle.runtimes.tensorrt import TensorRt

    commands = TensorRt().trtexec(subject.path)
    if not subject.export:
        return commands
    # the file inspected goes when the command ends
    ours, theirs = subject.path.with_suffix(""), Path(subject.export[-1]).with_suffix("")
    named = {version: text.replace(str(ours), str(theirs)) for version, text in commands.items()}
    return {"export": shlex.join(subject.export), **named}
