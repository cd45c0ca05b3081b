"""What `bench` and `inspect` are given: a bundle, an ONNX file, or a torch model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fettle import models, tasks
from fettle.core.arrays import Arrays, repeat_to
from fettle.core.bundle import Bundle, is_bundle
from fettle.core.machine import this_machine
from fettle.measure.lowering import choose_lowering
from fettle.runtimes import Runtime
from fettle.search._random_inputs import random_inputs
from fettle.search._trial import is_quantized

if TYPE_CHECKING:
    from torch import nn

DEFAULT_DATA = "noise:3x224x224"
_OF_FAMILY = {"cifar": "noise:3x32x32:10", "hf": "tokens:128:2", "rnn": "rows:noise:1x49x10:12"}


@dataclass(frozen=True)
class Subject:
    """One artifact: its ONNX file, its torch module if it has one, and inputs to run it on.

    `inputs` are real ones where the artifact brings some; else random ones of its shapes.
    """

    name: str
    path: Path
    inputs: Arrays
    quantized: bool
    module: nn.Module | None = None
    bundle: Bundle | None = None

    def batch(self, n: int) -> Arrays:
        """Return inputs of a batch of `n`."""
        return repeat_to(self.inputs, n)

    def lowering(self, runtime: Runtime) -> tuple[str, ...]:
        """Return what the bundle was proven with on this processor, else what helps here."""
        if not self.quantized:
            return ()
        if self.bundle is not None:
            manifest = self.bundle.manifest
            same = manifest.machine.get("cpu") == this_machine().cpu
            if same and runtime.name() in manifest.lowering:
                return tuple(manifest.lowering[runtime.name()])
        return choose_lowering(self.path, runtime, self.batch(8))[0]


def resolve(name: str, scratch: Path, weights: str | None = None, data: str = "") -> Subject:
    """Return the artifact that `name` means; a torch model is exported into `scratch`.

    Raises:
        BundleError: a bundle that is corrupted or changed.
        ModelError: a model that can't be read or exported.
        UnknownName: no such model.
    """
    if is_bundle(name) or _is_other_folder(name):
        bundle = Bundle.open(name)
        inputs, path = bundle.golden()[0], bundle.model_path
        models.check_onnx(path)
        return Subject(name, path, inputs, is_quantized(path), bundle=bundle)
    if models.is_onnx(name):
        models.check_onnx(name)
        return Subject(name, Path(name), random_inputs(Path(name)), is_quantized(Path(name)))
    return _exported(name, scratch, weights, data)


def _is_other_folder(name: str) -> bool:
    """Say whether `name` is a folder, but none that `models.save` wrote."""
    return Path(name).is_dir() and not (Path(name) / "structure.json").is_file()


def _exported(name: str, scratch: Path, weights: str | None, data: str) -> Subject:
    from fettle.export import export_onnx

    task = tasks.load(data or default_data(name))
    module = models.load(name, weights=weights, signature=task.signature)
    folder = scratch / f"model{len(list(scratch.iterdir()))}"
    export_onnx(module, task, folder)
    return Subject(name, folder / "model.onnx", task.example_inputs(8), False, module)


def default_data(name: str) -> str:
    """Return random data of the shape that a family of models is usually run on."""
    return _OF_FAMILY.get(name.partition(":")[0], DEFAULT_DATA)
