"""What is written down of a study's things, so that a node can make them anew: JSON and arrays."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from fettle.core import errors
from fettle.core.arrays import Arrays, TensorSpec
from fettle.core.errors import FettleError, InputError
from fettle.core.recipe import Recipe
from fettle.search._trial import Trial
from fettle.search.executors._job import Need, Order
from fettle.search.workshop import Source

LIVE = "live:"  # modules that exist in one process alone


class Foreign(Exception):
    """An error that isn't fettle's own, raised on a node; its class is named as it was there."""


def error_json(error: Exception) -> dict[str, Any]:
    """Return an error as data."""
    told = {name: value for name, value in vars(error).items() if isinstance(value, str | list)}
    return {"kind": type(error).__name__, "message": str(error), "told": told}


def error_of(found: dict[str, Any]) -> Exception:
    """Return an error of the same kind that says the same words."""
    cls = getattr(errors, found["kind"], None)
    if isinstance(cls, type) and issubclass(cls, FettleError):
        made = cls.__new__(cls)
        made.args = (found["message"],)
        vars(made).update(found["told"])
        return made
    foreign = type(found["kind"], (Foreign,), {})
    error: Exception = foreign(found["message"])
    return error


def source_json(source: Source) -> Order:
    """Return a source as data.

    Raises:
        InputError: it is a module that exists in this process alone.
    """
    if source.spec.startswith(LIVE):
        raise InputError(
            "a live module can't be sent to other machines: give a model's name, or a function that"
            " builds it, such as `path/file.py:function`, with its weights in a file"
        )
    return {
        "spec": source.spec,
        "weights": source.weights,
        "plan": None if source.plan is None else source.plan.values(),
        "files": source.identity()["files"],
        "main": _main(source),
    }


def needs_of(source: Source, name: str) -> list[Need]:
    """Return the files of a source: what its model is made of, and its weights."""
    weights = [Path(source.weights)] if source.weights else []
    own = [path for path in source.files() if path not in weights and path.is_file()]
    folder = _folder(source)
    inside = tuple(path.relative_to(folder).as_posix() for path in own)
    needs = [Need(name, folder, inside)] if inside else []
    return needs + [Need(f"{name} weights", path.parent, (path.name,)) for path in weights]


def _main(source: Source) -> str:
    """Return what a source is called inside of its parcel, empty when it is its folder."""
    place = Path(source.spec.rpartition(":")[0] or source.spec)
    return place.name if place.suffix == ".py" else Path(source.spec).name if source.is_onnx else ""


def _folder(source: Source) -> Path:
    """Return the folder that the files of a source lie in."""
    if source.is_onnx:
        return Path(source.spec).parent
    code = Path(source.spec.rpartition(":")[0])
    return code.parent if code.suffix == ".py" else Path(source.spec.removeprefix("hf:"))


def trial_json(trial: Trial) -> Order:
    """Return a trial as data; its artifact is named by its recipe and its key."""
    return {
        "name": trial.name,
        "recipe": str(trial.recipe.on(None)),
        "runtime": str(trial.runtime),
        "precision": trial.precision,
        "lowering": list(trial.lowering),
        "module": not isinstance(trial.model, Path),
        "key": trial.key,
    }


def runtime_of(text: str) -> Any:
    """Return the runtime that a trial's text names."""
    return Recipe.parse(f"@ {text}").runtime


def arrays_bytes(arrays: Arrays) -> bytes:
    """Return named arrays as an archive."""
    stream = io.BytesIO()
    named = {f"array/{name}": array for name, array in arrays.items()}
    np.savez(stream, allow_pickle=False, **named)
    return stream.getvalue()


def arrays_of(content: bytes) -> Arrays:
    """Return the arrays of an archive, in their order."""
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return {name.removeprefix("array/"): archive[name] for name in archive.files}


def spec_of(found: dict[str, Any]) -> TensorSpec:
    """Return an input or output from its JSON."""
    return TensorSpec(found["name"], found["dtype"], tuple(found["shape"]))
