"""What the coverage walk does to one architecture: each stage returns what it found."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _coverage_models import Subject, options
from _rivals import by_nncf
from torch import nn

from fettle import models, tasks
from fettle.core.recipe import parse_step
from fettle.core.shelf import RUNTIMES
from fettle.export import export_onnx
from fettle.measure import lowering
from fettle.measure._lowered_forms import Forms
from fettle.measure.latency import Plan, ratio, time_interleaved
from fettle.measure.latency import Subject as Timed
from fettle.measure.quality import run_batch
from fettle.models._torchvision import import_torchvision
from fettle.runtimes import Runtime, Session

import_torchvision()
import timm  # noqa: E402, F401 - loaded once, by the server that forks
import torch_pruning  # noqa: E402, F401
import torchao.quantization.pt2e  # noqa: E402, F401

ENGINES = ("onnxruntime", "openvino")
FAR = 0.5  # mean difference over mean output: past this it is another function, unless the
# untouched model moves its outputs by half as much for half a quantization step at its input, or
# NNCF's own INT8 file, of the same images, lies farther off: with random weights some networks
# amplify any noise
UNTIMED = "FETTLE_COVERAGE_UNTIMED"  # in the environment: skip the timing, a busy machine lies
_PLAN = Plan(seconds=1.0, rounds=6, samples=60, settle_seconds=0.02, warmup_seconds=0.1)
lowering._PLAN = Plan(seconds=0.4, rounds=6, samples=40, settle_seconds=0.01, warmup_seconds=0.02)
_SMALL = {"samples": 8, "batch_size": 4}

Found = dict[str, Any]


def export(subject: Subject, folder: Path) -> Found:
    """Export with parity, and keep the file for the stages that work on ONNX."""
    module, task = _settled(subject)
    parity = export_onnx(module, task, folder / "fp32")
    return {"parity": parity.to_json(), "parameters": _size(module)}


def static_int8(subject: Subject, folder: Path) -> Found:
    """`graph.static_int8` on the exported file: runs on both engines, computes the same."""
    return _rewritten(subject, folder, "graph.static_int8", _SMALL)


def dynamic_int8(subject: Subject, folder: Path) -> Found:
    """`graph.dynamic_int8` on the exported file."""
    return _rewritten(subject, folder, "graph.dynamic_int8", {})


def pruning(subject: Subject, folder: Path) -> Found:
    """`prune.channels` of 30 %: fewer parameters, sound outputs, opens again to the same."""
    module, task = _settled(subject)
    pruned = parse_step("prune.channels(ratio=0.3, epochs=0)")(module, task)  # type: ignore[operator]
    before, after = _size(module), _size(pruned)
    if after >= before:
        raise ValueError(f"nothing was removed: {before} parameters before and after")
    models.save(pruned, folder / "pruned")
    inputs = [torch.from_numpy(a) for a in task.example_inputs(2).values()]
    with torch.inference_mode():
        pair = pruned(*inputs), models.open(folder / "pruned")(*inputs)
        same = torch.allclose(*pair, rtol=1e-4, atol=1e-5)  # kernels may follow the alignment
    if not same:
        raise ValueError("opened again it computes something else")
    export_onnx(pruned, task, folder / "narrow")
    return {"parameters": after / before}


def aware(subject: Subject, folder: Path) -> Found:
    """`quantize.aware` for two steps, converted, exported and run."""
    module, task = _settled(subject)
    step = parse_step("quantize.aware(epochs=1, batch_size=2, lr=0.0001)")
    converted = step(copy.deepcopy(module), task)  # type: ignore[operator]
    export_onnx(converted, task, folder / "qat")
    inputs = task.example_inputs(2)
    outputs = {}
    for name in ENGINES:
        session = _engine(name).build(folder / "qat" / "model.onnx")
        outputs[name] = bool(np.isfinite(_first(run_batch(session, inputs))).all())
        session.close()
    if not all(outputs.values()):
        raise ValueError(f"finite outputs by engine: {outputs}")
    return {}


STAGES: dict[str, Callable[[Subject, Path], Found]] = {
    "export": export,
    "static_int8": static_int8,
    "dynamic_int8": dynamic_int8,
    "pruning": pruning,
    "aware": aware,
}


def _settled(subject: Subject) -> tuple[nn.Module, tasks.Task]:
    """Return the model with random weights, and batch norms that have seen some inputs.

    Some are made with a head of zeros, which answers zero whatever goes wrong before it.
    """
    task = tasks.load(subject.data, **options(subject))
    module = models.load(subject.model, signature=task.signature)
    for layer in module.modules():
        if isinstance(layer, nn.Linear) and not layer.weight.any():
            nn.init.trunc_normal_(layer.weight, std=layer.in_features**-0.5)
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    modes = {m: (m.training, m.momentum) for m in norms}
    inputs = [torch.from_numpy(a) for a in task.example_inputs(8).values()]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    with torch.no_grad():
        module(*inputs)
    for norm, (training, momentum) in modes.items():
        norm.train(training)
        norm.momentum = momentum
    return module, task


def _rewritten(subject: Subject, folder: Path, name: str, knobs: dict[str, Any]) -> Found:
    import onnx_ir as ir

    from fettle.core.shelf import PASSES

    task = tasks.load(subject.data, **options(subject))
    before, after = folder / "fp32" / "model.onnx", folder / name / "model.onnx"
    after.parent.mkdir(exist_ok=True)
    model = PASSES.make(name, **knobs)(ir.load(before), task)  # type: ignore[operator]
    ir.save(model, after, external_data="model.onnx.data")
    inputs = task.example_inputs(4)
    found = {engine: _compared(before, after, _engine(engine), inputs) for engine in ENGINES}
    if name == "graph.static_int8":
        found = _beside_nncf(found, before, task)
    size = sum(f.stat().st_size for f in after.parent.iterdir()) / sum(
        f.stat().st_size for f in before.parent.iterdir() if f.name.startswith("model")
    )
    if all("refused" in f for f in found.values()):
        raise ValueError("; ".join(f"{e}: {f['refused']}" for e, f in found.items()))
    return {"engines": found, "size": size}


def _beside_nncf(found: dict[str, Found], before: Path, task: tasks.Task) -> dict[str, Found]:
    """Judge what lies far off by how far NNCF's own file lies off, made of the same images."""
    if not any("far" in f for f in found.values()):
        return found
    batches = [b.inputs for b in task.batches("calibrate", _SMALL["batch_size"])]
    rival = by_nncf(before, batches, before.parent / "nncf.onnx")
    inputs = task.example_inputs(4)
    for engine, mine in found.items():
        if "far" not in mine or not isinstance(rival, Path):
            continue
        theirs = _compared(before, rival, _engine(engine), inputs, lowered=False).get("apart", 0.0)
        if mine["apart"] <= theirs:
            found[engine] = {k: v for k, v in mine.items() if k not in ("refused", "far")}
            found[engine]["nncf"] = theirs
        else:
            mine["refused"] += f", NNCF's own file: {theirs:.2g}"
    return found


def _compared(
    before: Path, after: Path, engine: Runtime, inputs: dict, lowered: bool = True
) -> Found:
    """Return how far the outputs are apart, and the ratio of times at batch 1."""
    one = {name: array[:1] for name, array in inputs.items()}
    plain = engine.build(before)
    try:
        timed = UNTIMED not in os.environ
        choose = partial(_lowered, inputs=inputs) if timed else _all_passes
        passes = choose(after, engine) if lowered else ()
        session = engine.build(after, passes)
        a, b = (_first(run_batch(s, inputs)) for s in (plain, session))
        apart = float(np.abs(a - b).mean() / max(np.abs(a).mean(), 1e-9))
        speed = _gain(plain, session, one) if timed else None
        limit = _limit(plain, inputs, a)
        session.close()
    except Exception as error:  # an engine's refusal is a finding, whatever its class
        return {"refused": f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"}
    finally:
        plain.close()
    told = {"apart": apart, "limit": limit, "speed": speed, "lowering": list(passes)}
    if not a.any():
        return {"refused": "the untouched model answers zeros alone: there is nothing to compare"}
    if not np.isfinite(apart):
        return {"refused": "computes what is no number"}
    if apart > limit:
        why = f"computes something else: {apart:.2g} of the mean output (limit {limit:.2g})"
        return {**told, "refused": why, "far": True}
    return told


def _lowered(model: Path, engine: Runtime, inputs: dict) -> tuple[str, ...]:
    return lowering.choose_lowering(model, engine, inputs)[0]


def _all_passes(model: Path, engine: Runtime) -> tuple[str, ...]:
    """Return every pass that finds something to rewrite, whether it pays or not."""
    with tempfile.TemporaryDirectory() as folder:
        return lowering._effective(Forms(model, Path(folder)), lowering.candidates(engine))


def _gain(plain: Session, other: Session, one: dict) -> float:
    timed = [Timed("plain", partial(run_batch, plain, one)),
             Timed("other", partial(run_batch, other, one))]  # fmt: skip
    samples = time_interleaved(timed, _PLAN)
    return ratio(samples["plain"], samples["other"]).value


def _limit(plain: Session, inputs: dict, outputs: np.ndarray) -> float:
    """Return how far INT8 may move the outputs of this network, see FAR."""
    rng = np.random.default_rng(0)
    moved = {name: lowering._half_a_step_off(array, rng) for name, array in inputs.items()}
    noisy = _first(run_batch(plain, moved))
    return max(FAR, 2 * float(np.abs(outputs - noisy).mean() / max(np.abs(outputs).mean(), 1e-9)))


def _engine(name: str) -> Runtime:
    runtime = RUNTIMES.make(name, threads=1)
    assert isinstance(runtime, Runtime)
    return runtime


def _first(outputs: dict) -> np.ndarray:
    return next(iter(outputs.values()))


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
