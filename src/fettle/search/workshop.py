"""The workshop: makes the artifact of a recipe, one cached stage after the other.

A stage's key is a hash of its parent's key, the plug-in with all its knobs, the data, the seed,
the teacher and the versions of the libraries at work: whatever could change what comes out.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fettle import models
from fettle.core.context import Context
from fettle.core.errors import ModelError
from fettle.core.hashing import file_sha256, fingerprint
from fettle.core.machine import versions
from fettle.core.plugin import Plugin
from fettle.core.progress import Reporter
from fettle.core.recipe import Recipe
from fettle.search._store import Stage, Store
from fettle.tasks import Task

if TYPE_CHECKING:
    from torch import nn

    from fettle.search._measuring import Measuring
    from fettle.train import FitPlan

_WORKING = (
    *("fettle", "torch", "torchvision", "timm", "torchao", "torch-pruning", "lightning-fabric"),
    *("onnx", "onnx-ir", "onnxscript", "transformers", "tokenizers"),
)


def libraries() -> dict[str, str]:
    """Return the versions of whatever makes the artifacts: a part of every stage's key."""
    return {name: found for name, found in versions().items() if name in _WORKING}


@dataclass(frozen=True)
class Source:
    """Where a model comes from: its name, its weights, and how to train it if it has none."""

    spec: str
    weights: str | None = None
    plan: FitPlan | None = None

    @property
    def title(self) -> str:
        """What people and records call it."""
        return self.spec

    @property
    def is_onnx(self) -> bool:
        """Whether this is an ONNX file, which techniques on torch modules can't work on."""
        return self.spec.endswith(".onnx")

    def identity(self) -> dict[str, Any]:
        """Return what distinguishes this source: names, and the contents of its files."""
        return {
            "spec": self.spec,
            "files": [file_sha256(path) for path in self.files() if path.is_file()],
            "plan": self.plan.values() if self.plan else None,
        }

    def check(self) -> None:
        """Refuse an ONNX file that is none, or that comes with weights in another file.

        Raises:
            ModelError: as the message says.
        """
        if not self.is_onnx:
            return
        if self.weights:
            raise ModelError(
                f"{self.spec} brings its own weights, so `--weights {self.weights}` has no use:"
                " leave it out, or give the torch model"
            )
        models.check_onnx(self.spec)

    def files(self) -> list[Path]:
        """Return the files that the model is made of, in a fixed order."""
        if self.is_onnx:
            return models.onnx_files(self.spec)
        code, folder = Path(self.spec.rpartition(":")[0]), Path(self.spec.removeprefix("hf:"))
        own = [code] if code.suffix == ".py" else []
        if folder.is_dir():
            own = sorted(p for p in folder.iterdir() if p.suffix in (".json", ".safetensors"))
        return [*own, *([Path(self.weights)] if self.weights else [])]


Teachers = Source | Sequence[Source] | None


@dataclass(frozen=True)
class Made:
    """An ONNX artifact and the stages that made it."""

    path: Path
    key: str
    stages: tuple[Stage, ...]


class Workshop:
    """Makes artifacts of one source for one task, and keeps every stage in a store.

    Several teachers teach as one: the mean of their probabilities.
    """

    def __init__(
        self,
        source: Source,
        task: Task,
        store: Store,
        context: Context,
        teacher: Teachers = None,
    ) -> None:
        self.source, self.task, self.store, self.context = source, task, store, context
        self._asked = task.signature  # the task may learn more of the model later on
        self.teachers = (teacher,) if isinstance(teacher, Source) else tuple(teacher or ())
        self._teacher: nn.Module | None = None
        self.answers: dict[str, str] = {}  # of the original by split, as keys in the store
        self._versions = libraries()

    def check(self, recipe: Recipe) -> None:
        """Refuse a recipe that can't work on this source, before any of it is begun.

        Raises:
            ModelError: the source is no sound model, or a step can't take what comes to it.
        """
        self.source.check()
        techniques = recipe.techniques
        if self.source.is_onnx and techniques:
            raise ModelError(
                f"`{techniques[0].name()}` works on a torch module, and {self.source.spec} is an"
                " ONNX file: leave it out of the recipe, or give the torch model"
            )
        for step, following in itertools.pairwise(techniques):
            if getattr(step, "final", False):
                raise ModelError(
                    f"`{following.name()}` can't follow `{step.name()}`, which converts the model"
                    " for good: put it before, quantization comes last"
                )

    def begin(self, recipes: Iterable[Recipe]) -> None:
        """Say what will be asked for, so that others may begin with it: here there are none."""

    def measuring(self, batch: int, seconds: float, progress: Reporter) -> Measuring:
        """Return what measures the trials of this workshop's artifacts."""
        from fettle.search._measuring import Measuring

        return Measuring(self.store, self.task, batch, seconds, progress)

    def make(self, recipe: Recipe) -> Made:
        """Return the ONNX artifact of a recipe.

        Raises:
            ModelError: a step can't work on this model.
        """
        self.check(recipe)
        made = self._export(recipe.techniques)
        for graph_pass in recipe.passes:
            made = self._rewrite(made, graph_pass)
        return made

    def module(self, techniques: Sequence[Plugin] = ()) -> nn.Module:
        """Return the torch module after `techniques`."""
        return self._module(tuple(techniques), [])

    def key(self, techniques: Sequence[Plugin] = ()) -> str:
        """Return the key of the stage that ends with these techniques."""
        if not techniques:
            return self._source_key(self.source)
        *before, last = techniques
        keys = [self._source_key(teacher) for teacher in self._teachers_of(last)]
        taught = keys if len(keys) > 1 else next(iter(keys), None)
        return self._key(self.key(before), last.name(), last.values(), taught, self._data())

    def _teachers_of(self, technique: Plugin) -> tuple[Source, ...]:
        return self.teachers if getattr(technique, "takes_teacher", False) else ()

    def _export(self, techniques: tuple[Plugin, ...]) -> Made:
        if self.source.is_onnx:
            return Made(Path(self.source.spec), self._source_key(self.source), ())
        key = self._key(self.key(techniques), "export")
        stages: list[Stage] = []

        def work(folder: Path) -> None:
            from fettle.export import export_onnx

            module = self._module(techniques, stages)
            self.context.progress.say(f"export: {_title(techniques)}")
            started = time.perf_counter()
            parity = export_onnx(module, self.task, folder / "onnx")
            stages.append(Stage("export", time.perf_counter() - started, cached=False))
            record = {"stages": [s.to_json() for s in stages], "parity": parity.to_json()}
            (folder / "made.json").write_text(json.dumps(record), encoding="utf-8")

        folder, stage = self.store.make(key, "export", work)
        self.store.drop_checkpoints(self.key(techniques))  # of a final step, kept by its export
        record = json.loads((folder / "made.json").read_text(encoding="utf-8"))
        found = (Stage(s["name"], s["seconds"], s["cached"]) for s in record["stages"])
        made = tuple(replace(s, cached=True) if stage.cached else s for s in found)
        return Made(folder / "onnx" / "model.onnx", key, made)

    def _rewrite(self, made: Made, graph_pass: Plugin) -> Made:
        import onnx_ir as ir

        key = self._key(made.key, graph_pass.name(), graph_pass.values(), self._data())

        def work(folder: Path) -> None:
            self.context.progress.say(f"{graph_pass}")
            rewrite = graph_pass.within(self.context)  # type: ignore[attr-defined]
            model = rewrite(ir.load(made.path), self.task)
            beside = "model.onnx.data" if len(models.onnx_files(made.path)) > 1 else None
            ir.save(model, folder / "model.onnx", external_data=beside)

        folder, stage = self.store.make(key, str(graph_pass), work)
        return Made(folder / "model.onnx", key, (*made.stages, stage))

    def _module(self, techniques: tuple[Plugin, ...], stages: list[Stage]) -> nn.Module:
        """Open the longest chain of techniques that is in the store, then apply the rest."""
        done = len(techniques)
        while done and not self.store.has(self.key(techniques[:done])):
            done -= 1
        module, found = (
            self._load(self.source) if done == 0 else (None, self._found(techniques[:done]))
        )
        stages.extend(found)
        if module is None:
            module = _open(self.store.folder(self.key(techniques[:done])) / "model")
        for end in range(done + 1, len(techniques) + 1):
            module = self._step(module, techniques[:end], stages)
        return module

    def _found(self, techniques: tuple[Plugin, ...]) -> list[Stage]:
        """Return the records of stages that are in the store, from the source on."""
        wanted = [(self._source_key(self.source), f"train({self.source.title})")]
        for end, technique in enumerate(techniques, start=1):
            teachers = self._teachers_of(technique)
            wanted.extend((self._source_key(t), f"train({t.title})") for t in teachers)
            wanted.append((self.key(techniques[:end]), str(technique)))
        stages = [self.store.find(key, name) for key, name in wanted]
        return [stage for stage in stages if stage is not None]

    def _step(self, module: nn.Module, chain: tuple[Plugin, ...], stages: list[Stage]) -> nn.Module:
        """Apply the last technique of `chain` to the module that the others made."""
        key, last = self.key(chain), chain[-1]
        teacher = self._taught_by(last, stages)
        if getattr(last, "final", False):  # such a graph is kept as ONNX, by the export
            started = time.perf_counter()
            result = self._apply(last, module, key, teacher)
            stages.append(Stage(str(last), time.perf_counter() - started, cached=False))
            return result
        made: list[nn.Module] = []

        def work(folder: Path) -> None:
            made.append(self._apply(last, module, key, teacher))
            models.save(made[0], folder / "model")

        _, stage = self.store.make(key, str(last), work)
        stages.append(stage)
        return made[0]

    def _taught_by(self, technique: Plugin, stages: list[Stage]) -> nn.Module | None:
        """Return the teacher that a technique learns from, trained if need be."""
        modules = []
        for source in self._teachers_of(technique):
            teacher, found = self._load(source)
            modules.append(teacher)
            stages.extend(found)
        if modules and self._teacher is None:
            from fettle.compress import Ensemble

            # one object for all stages: what it answered for one student is known to the next
            self._teacher = modules[0] if len(modules) == 1 else Ensemble(modules)
        return self._teacher if modules else None

    def _apply(
        self, technique: Plugin, module: nn.Module, key: str, teacher: nn.Module | None
    ) -> nn.Module:
        self.context.progress.say(f"{technique}")
        context = replace(self.context, teacher=teacher, checkpoints=self.store.checkpoints(key))
        result: nn.Module = technique.within(context)(module, self.task)  # type: ignore[attr-defined]
        return result

    def _load(self, source: Source) -> tuple[nn.Module, list[Stage]]:
        def load() -> nn.Module:
            return models.load(
                source.spec,
                weights=source.weights,
                signature=self._asked if source is self.source else self.task.signature,
                seed=self.context.seed,
            )

        if source.plan is None:
            return load(), []
        key, plan = self._source_key(source), source.plan

        def work(folder: Path) -> None:
            from fettle.train import fit

            self.context.progress.say(f"train {source.title}")
            module = load()
            fit(
                module,
                self.task,
                plan,
                replace(self.context, checkpoints=self.store.checkpoints(key)),
            )
            models.save(module, folder / "model")

        folder, stage = self.store.make(key, f"train({source.title})", work)
        return _open(folder / "model"), [stage]

    def _source_key(self, source: Source) -> str:
        signature = self._asked if source is self.source else self.task.signature
        shape = [[spec.to_json() for spec in signature.inputs], signature.classes]
        data = self._data() if source.plan else None
        return self._key(source.identity(), shape, data)

    def _key(self, *parts: Any) -> str:
        return fingerprint([*parts, self.context.seed, self._versions])

    def _data(self) -> list[str]:
        return [self.task.fingerprint("train"), self.task.fingerprint("calibrate")]


def _open(folder: Path) -> nn.Module:
    return models.open(folder)


def _title(techniques: Sequence[Plugin]) -> str:
    return " > ".join(str(t) for t in techniques) or "the model as it is"
