"""Sealing a study: its result, its report, and the winner as a bundle."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from fettle import models, report
from fettle.core.arrays import Arrays, TensorSpec
from fettle.core.bundle import MODEL, Manifest, write_bundle
from fettle.core.files import storage_errors, write_json, write_text
from fettle.measure.lowering import limits_of
from fettle.search._guessing import only_guesses
from fettle.search._saturating import EXAMPLES, saturation_check
from fettle.search._trial import Trial

if TYPE_CHECKING:
    from fettle.search._result import Findings
    from fettle.search.study import Study

Checks = tuple[dict[str, Any], ...]

_REFERENCE_BYTES = 4_000_000


def seal(study: Study, found: Findings, result: dict[str, Any]) -> dict[str, Any]:
    """Write the bundle `best`, `result.json` and `report.html`; return the result.

    The winner's runtime may add what its sessions start from, such as an engine.
    """
    checks = _checks(study, found.winner)
    doubt = only_guesses(study.workshop.task, result["baseline"]["metric"])
    said = [doubt, result.get("warning"), *(check["warning"] for check in checks)]
    result = {**result, "warning": "; ".join(text for text in said if text) or None}
    with storage_errors(study.out):
        _bundle(study, found, result, checks)
    write_json(study.out / "result.json", result)
    report.write(study.out)
    study.workshop.store.journal.write(
        "verdict",
        verdict=result["verdict"],
        text=result["verdict_text"],
        recipe=result["best"]["recipe"],
    )
    return result


def _checks(study: Study, winner: Trial) -> Checks:
    if not winner.is_lowered:
        return ()
    assert isinstance(winner.model, Path)
    inputs, _ = study.measuring.golden(winner, EXAMPLES)
    return saturation_check(winner.model, inputs, winner.lowering, study.measuring.machine)


def _bundle(study: Study, found: Findings, result: dict[str, Any], checks: Checks) -> None:
    with tempfile.TemporaryDirectory(dir=study.out, prefix=".best.", suffix=".tmp") as name:
        folder = Path(name)
        _fill(study, found.winner, folder)
        write_text(folder / "card.md", report.card(result))
        write_text(folder / "report.html", report.render(result))
        found.winner.runtime.add_to_bundle(folder, found.winner.lowering)
        write_bundle(study.out / "best", _manifest(study, found, result, checks), folder)


def _fill(study: Study, winner: Trial, folder: Path) -> None:
    assert isinstance(winner.model, Path)
    _copy_model(winner.model, folder / MODEL)
    inputs, outputs = study.measuring.golden(winner)
    _save(folder / "golden.npz", inputs, outputs)
    n = min(_affordable(inputs), study.workshop.task.size("calibrate"))
    _save(folder / "reference.npz", *study.measuring.golden(winner, n))


def _copy_model(model: Path, target: Path) -> None:
    """Copy an ONNX file; weights that lie beside it come along, in one file named as it is."""
    if models.onnx_files(model) == [model]:
        shutil.copyfile(model, target)
        return
    loaded, location = models.check_onnx(model), f"{target.name}.data"
    onnx.save(loaded, target, save_as_external_data=True, location=location)


def _affordable(inputs: Arrays) -> int:
    one = sum(array[:1].nbytes for array in inputs.values())
    return int(np.clip(_REFERENCE_BYTES // max(one, 1), 16, 512))


def _save(path: Path, inputs: Arrays, outputs: Arrays) -> None:
    named = {f"input/{k}": v for k, v in inputs.items()}
    np.savez(path, allow_pickle=False, **named, **{f"output/{k}": v for k, v in outputs.items()})


def _manifest(study: Study, found: Findings, result: dict[str, Any], checks: Checks) -> Manifest:
    winner, task = found.winner, study.workshop.task
    assert winner.session is not None
    outputs = _specs_of_outputs(winner, task.signature.classes)
    measured = (
        "metric",
        "latency_ms",
        "throughput",
        "size_bytes",
        "peak_memory_bytes",
        "macs",
        "sparsity",
        "speedup",
    )
    return Manifest(
        inputs=winner.session.inputs,
        outputs=outputs,
        recipe=str(winner.recipe),
        runtime=str(winner.runtime),
        labels=task.labels,
        preprocessing=dict(task.preprocessing),
        lineage={
            "model": result["model"],
            "key": winner.key,
            "seed": study.workshop.context.seed,
            "stages": result["best"]["stages"],
            "created": result["created"],
            "command": result["command"],
        },
        data={"source": result["data"], "fingerprints": result["fingerprints"]},
        measurements={
            **{name: result["best"][name] for name in measured},
            "batch": study.setting.batch,
            "baseline": {name: result["baseline"][name] for name in measured},
        },
        verdict=found.verdict.to_json(),
        checks=checks,
        lowering={winner.runtime.name(): list(winner.lowering)},
        golden=_tolerance(study, winner),
        machine=study.measuring.machine.to_json(),
        versions=study.measuring.versions,
    )


def _tolerance(study: Study, winner: Trial) -> dict[str, float]:
    """Return how closely a replay of the golden inputs must keep to the golden outputs."""
    assert winner.session is not None
    limits = limits_of(winner.session, *study.measuring.golden(winner))
    return {"mean_difference": limits.mean_difference, "agreement": 1 - limits.flips}


def _specs_of_outputs(winner: Trial, classes: int) -> tuple[TensorSpec, ...]:
    assert winner.session is not None
    specs = winner.session.outputs
    shape = (-1, classes) if classes else (-1, *specs[0].shape[1:])
    return (TensorSpec(specs[0].name, specs[0].dtype, shape), *specs[1:])
