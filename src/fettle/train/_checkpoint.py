"""The checkpoint of a fit: one safetensors file, its scalars as JSON in the header.

A single file is replaced in one rename, so a reader sees the old state or the new one, never a
mixture. Format: https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save as to_bytes
from torch import Tensor, nn
from torch.optim import Optimizer

from fettle.core.errors import InputError, ModelError
from fettle.core.files import replacing, storage_errors
from fettle.core.hashing import array_fingerprint, fingerprint
from fettle.train._job import Job

FILE = "fit.safetensors"
Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Saved:
    """A checkpoint as read."""

    tensors: Tensors
    scalars: Mapping[str, Any]


def write(path: Path, tensors: Tensors, header: Mapping[str, Any]) -> None:
    """Write tensors and a JSON header to `path`, whole or not at all.

    Raises:
        StorageError: the disk is full, or the folder can't be written.
    """
    # Clones: safetensors refuses tied weights, which share their memory.
    plain = {k: t.detach().cpu().clone().contiguous() for k, t in tensors.items()}
    data = to_bytes(plain, {"fettle": json.dumps(header)})
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def read(path: Path) -> Saved:
    """Read what `write` wrote.

    Raises:
        ValueError: it is no such file, or it is truncated.
    """
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            header = json.loads((file.metadata() or {})["fettle"])
            names = list(file.keys())
            return Saved({name: file.get_tensor(name) for name in names}, header)
    except (safetensors.SafetensorError, OSError, KeyError) as error:
        raise ValueError(str(error)) from error


def key_of(job: Job) -> dict[str, str]:
    """Return what a checkpoint must share with a run to be continued by it."""
    state = model_state(job.model)
    shapes = [(name, list(p.shape)) for name, p in job.model.named_parameters()]
    return {
        "plan": fingerprint(job.plan.values()),
        "architecture": fingerprint([sorted(state), shapes]),
        "starting weights": array_fingerprint(*(_bytes_of(state[name]) for name in sorted(state))),
        "training data": job.task.fingerprint("train"),
        "seed": str(job.context.seed),
        "hooks": job.hooks.key,
    }


def prepare(folder: Path | None) -> None:
    """Make the folder, so that a bad one is known before the first epoch and not after it.

    Raises:
        InputError: there is a file of that name.
        StorageError: it can't be made.
    """
    if folder is None:
        return
    if folder.exists() and not folder.is_dir():
        raise InputError(f"`checkpoints` expects a folder, but {folder} is a file; name another")
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)


def find(folder: Path | None, key: Mapping[str, str], say: Callable[[str], None]) -> Saved | None:
    """Return the checkpoint in `folder` if it continues a run with this key, else say why not."""
    path = folder / FILE if folder else None
    if path is None or not path.is_file():
        return None
    try:
        saved = read(path)
    except ValueError as error:
        say(f"the checkpoint {path} can't be read ({error}); starting anew")
        return None
    theirs = saved.scalars.get("key", {})
    differ = [name for name in key if theirs.get(name) != key[name]]
    if differ:
        say(f"the checkpoint {path} has another {' and '.join(differ)}; starting anew")
        return None
    return saved


def model_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the model's state, which must be tensors only.

    Raises:
        ModelError: a module keeps other objects as extra state.
    """
    state = dict(model.state_dict())
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise ModelError(
                f"`{name}` in the model's state is a {type(value).__name__}, and only tensors can"
                " be saved without pickle; make it a buffer"
            )
    return state


def load_model(model: nn.Module, tensors: Tensors) -> None:
    """Put the tensors of `model_state` back, into a model with the same names.

    They go into the model's own state dict for its version marks: without them torchao's
    observers take it for an old file, and set their `eps` to another value.
    """
    state = model.state_dict()
    assert state.keys() == tensors.keys()
    state.update(tensors)
    model.load_state_dict(state)


def optimizer_state(optimizer: Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's tensors as `index.name`; its options follow from the plan."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": value
        for index, entry in state.items()
        for name, value in entry.items()
        if isinstance(value, Tensor)
    }


def load_optimizer(optimizer: Optimizer, tensors: Tensors) -> None:
    """Put the tensors of `optimizer_state` back."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def prefixed(prefix: str, tensors: Tensors) -> dict[str, Tensor]:
    """Return the tensors with `prefix` before their names."""
    return {prefix + name: tensor for name, tensor in tensors.items()}


def section(prefix: str, tensors: Tensors) -> dict[str, Tensor]:
    """Return the tensors whose names start with `prefix`, without it."""
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}


def _bytes_of(tensor: Tensor) -> Any:
    # As bytes, since numpy has no bfloat16. A clone, since numpy() pins the storage it shares and
    # observers resize theirs.
    return tensor.detach().cpu().clone().contiguous().reshape(-1).view(torch.uint8).numpy()
