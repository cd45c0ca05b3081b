"""What `bench` and `inspect` are given: a bundle, an ONNX file, or a torch model."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fettle import models, tasks
from fettle.core.arrays import Arrays, TensorSpec, repeat_to, rows
from fettle.core.bundle import Bundle, is_bundle
from fettle.core.errors import FettleError, InputError, MissingError, ModelError, ParityError
from fettle.core.machine import this_machine
from fettle.measure import ModuleSource, onnx_bytes
from fettle.measure.lowering import choose_lowering
from fettle.runtimes import Runtime, match_inputs
from fettle.search._random_inputs import input_specs, random_inputs
from fettle.search._trial import is_quantized

if TYPE_CHECKING:
    from torch import nn

DEFAULT_DATA = "noise:3x224x224"
_OF_FAMILY = {"cifar": "noise:3x32x32:10", "hf": "tokens:128:2", "rnn": "rows:noise:1x49x10:12"}


@dataclass(frozen=True)
class Subject:
    """One artifact: its ONNX file, its torch module if it has one, and inputs to run it on.

    `inputs` are real ones where the artifact brings some; else random ones of its shapes.
    `no_onnx` and `no_inputs` say why the file at `path` or the inputs could not be made; `source`
    how another process makes the module again, and `export` the command that writes its ONNX file.
    Inputs in `held` have no batch in front: states, settings.
    """

    name: str
    path: Path
    inputs: Arrays
    quantized: bool
    module: nn.Module | None = None
    bundle: Bundle | None = None
    no_onnx: FettleError | None = None
    no_inputs: FettleError | None = None
    source: ModuleSource | None = None
    export: tuple[str, ...] = ()
    held: frozenset[str] = frozenset()

    @property
    def onnx(self) -> Path:
        """The ONNX file.

        Raises:
            FettleError: a torch model that can't be exported; the exporter's reason.
        """
        if self.no_onnx is not None:
            raise self.no_onnx
        return self.path

    def batch(self, n: int) -> Arrays:
        """Return inputs of a batch of `n`.

        Raises:
            FettleError: none could be made; the message says why.
        """
        if self.no_inputs is not None:
            raise self.no_inputs
        batched = {k: array for k, array in self.inputs.items() if k not in self.held}
        return {**self.inputs, **repeat_to(batched, n)}

    def convolves(self) -> bool:
        """Say whether the module has weights with a layout: those of convolutions of images."""
        return self.module is not None and any(w.dim() == 4 for w in self.module.parameters())

    def size_bytes(self) -> int:
        """Return the bytes of the ONNX file, or of a module's weights where there is none."""
        if self.no_onnx is None:
            return onnx_bytes(self.path)
        assert self.module is not None
        weights = [*self.module.parameters(), *self.module.buffers()]
        return sum(tensor.numel() * tensor.element_size() for tensor in weights)

    def lowering(self, runtime: Runtime) -> tuple[str, ...]:
        """Return what the bundle was proven with on this processor, else what helps here."""
        if not self.quantized:
            return ()
        if self.bundle is not None:
            manifest = self.bundle.manifest
            same = manifest.machine.get("cpu") == this_machine().cpu
            if same and runtime.name() in manifest.lowering:
                return tuple(manifest.lowering[runtime.name()])
        return choose_lowering(self.onnx, runtime, self.batch(8))[0]


def resolve_all(
    names: Sequence[str], scratch: Path, weights: Sequence[str] = (), data: Sequence[str] = ()
) -> list[Subject]:
    """Return the artifacts that `names` mean, each under a name of its own.

    `weights` belong to the torch models among them, in their order; '' is for one that brings its
    own. `data` is one for all, or one for each of `names`; '' stands for what its kind usually
    runs on.

    Raises:
        InputError: more or fewer weights or data than there is use for.
        BundleError, ModelError, UnknownName: as `resolve`.
    """
    torch_models = [i for i, name in enumerate(names) if not _is_file(name)]
    if weights and len(weights) != len(torch_models):
        raise InputError(
            f"`--weights` is expected once for each of the {len(torch_models)} torch models, in"
            f" their order, got {len(weights)}; give '' for one that brings its own"
        )
    if len(data) > 1 and len(data) != len(names):
        raise InputError(
            f"`--data` is expected once, or once for each of the {len(names)} artifacts, got"
            f" {len(data)}; give '' for one that brings its own"
        )
    given = dict(zip(torch_models, weights, strict=False))
    inputs = list(data) * len(names) if len(data) == 1 else list(data) or [""] * len(names)
    found = [
        resolve(name, scratch, given.get(i) or None, inputs[i]) for i, name in enumerate(names)
    ]
    return _told_apart(found)


def resolve(name: str, scratch: Path, weights: str | None = None, data: str = "") -> Subject:
    """Return the artifact that `name` means; a torch model is exported into `scratch`.

    With `data`, its inputs are that data's; without, those that a bundle brings, or random ones.
    A torch model that can't be exported, and a file whose inputs can't be made, come back with
    the reason: what can be done without goes on.

    Raises:
        BundleError: a bundle that is corrupted or changed.
        InputError: weights for what is no torch model, or data whose inputs don't fit.
        ModelError: a model that can't be read.
        UnknownName: no such model.
    """
    if weights and _is_file(name):
        raise InputError(f"`--weights` are for torch models, and `{name}` holds its own: drop them")
    if is_bundle(name) or _is_other_folder(name):
        bundle = Bundle.open(name)
        path = bundle.model_path
        models.check_onnx(path)
        inputs = _inputs_of(path, data) if data else bundle.golden()[0]
        held = _held(input_specs(path))
        return Subject(name, path, inputs, is_quantized(path), bundle=bundle, held=held)
    if models.is_onnx(name):
        path = Path(name)
        models.check_onnx(path)
        inputs, why = (_inputs_of(path, data), None) if data else _random(path)
        held = _held(input_specs(path))
        return Subject(name, path, inputs, is_quantized(path), no_inputs=why, held=held)
    return _exported(name, scratch, weights, data)


def _is_file(name: str) -> bool:
    """Say whether `name` is an artifact on disk that holds its weights: ONNX or bundle."""
    return models.is_onnx(name) or is_bundle(name) or _is_other_folder(name)


def _told_apart(subjects: Sequence[Subject]) -> list[Subject]:
    """Number the artifacts that bear one name: `model.onnx`, `model.onnx (2)`."""
    seen: Counter[str] = Counter()
    found = []
    for subject in subjects:
        seen[subject.name] += 1
        turn = seen[subject.name]
        found.append(replace(subject, name=f"{subject.name} ({turn})") if turn > 1 else subject)
    return found


def _inputs_of(path: Path, data: str) -> Arrays:
    """Return eight rows of `data` under the names of the model's inputs, which they must fit."""
    given, specs = rows(tasks.load(data).example_inputs(8), 0, 8), input_specs(path)
    fixed = {spec.shape[0] for spec in specs if spec.shape[:1] > (0,)}
    try:
        return match_inputs(specs, repeat_to(given, min(fixed, default=8)))
    except InputError as error:
        raise InputError(f"`--data {data}` doesn't fit {path}: {error}") from error


def _held(specs: Sequence[TensorSpec]) -> frozenset[str]:
    """Return the inputs whose first dimension isn't the batch: that is free, or the first's."""
    first = [spec.shape[0] for spec in specs if spec.shape]
    batch = -1 if -1 in first else next(iter(first), -1)
    return frozenset(spec.name for spec in specs if spec.shape[:1] != (batch,))


def _random(path: Path) -> tuple[Arrays, FettleError | None]:
    try:
        return random_inputs(path), None
    except ModelError as error:
        return {}, error


def _is_other_folder(name: str) -> bool:
    """Say whether `name` is a folder, but none that `models.save` wrote."""
    return Path(name).is_dir() and not (Path(name) / "structure.json").is_file()


def _exported(name: str, scratch: Path, weights: str | None, data: str) -> Subject:
    from fettle.export import export_onnx

    task = tasks.load(data or default_data(name))
    module = models.load(name, weights=weights, signature=task.signature)
    folder = scratch / f"model{len(list(scratch.iterdir()))}"
    why: FettleError | None = None
    try:
        export_onnx(module, task, folder)
    except (MissingError, ModelError, ParityError) as error:
        why = error
    inputs = task.example_inputs(8)
    shapes = {name: array.shape[1:] for name, array in inputs.items()}
    source = ModuleSource(name, weights, task.signature, shapes)
    path = folder / "model.onnx"
    command = _export_command(name, weights, data or default_data(name))
    return Subject(name, path, inputs, False, module, no_onnx=why, source=source, export=command)


def _export_command(name: str, weights: str | None, data: str) -> tuple[str, ...]:
    """Return the words of the command that writes the model's ONNX file; the file is the last."""
    stem = re.sub(r"[^\w.-]+", "_", name.removesuffix("/").rpartition("/")[2])
    words = ("fettle", "export", "--model", name, "--data", data)
    given = ("--weights", weights) if weights else ()
    return (*words, *given, "--out", f"{stem}.onnx")


def default_data(name: str) -> str:
    """Return random data of the shape that a family of models is usually run on."""
    return _OF_FAMILY.get(name.partition(":")[0], DEFAULT_DATA)
