"""Files of weights: safetensors, or what `torch.load` reads without running code."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fettle.core.errors import ModelError
from fettle.core.files import replacing

_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".th")


def save_weights(module: nn.Module, path: str | Path) -> None:
    """Write the parameters and buffers of `module` to `path`, a safetensors file.

    Raises:
        StorageError: the disk is full, or the folder can't be written.
    """
    write_tensors(module.state_dict(), path)


def write_tensors(tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Write tensors by name to `path`, a safetensors file.

    Raises:
        StorageError: the disk is full, or the folder can't be written.
    """
    from safetensors.torch import save

    # clones: safetensors refuses tensors that share memory, such as tied weights
    state = {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}
    with replacing(Path(path)) as temporary:
        temporary.write_bytes(save(state))  # save_file has an error of its own for a full disk


def load_weights(module: nn.Module, path: str | Path) -> nn.Module:
    """Put the weights in file `path` into `module`, and return it.

    Counts of batches that batch normalisation keeps may be missing.

    Raises:
        ModelError: the file is missing, can't be read safely, or doesn't fit the module.
    """
    state = read_weights(path)
    own = module.state_dict()
    _check_fit(own, state, Path(path))
    # The versions that some modules ask for (MNASNet) are those of the module that takes them.
    own.update(state)
    module.load_state_dict(own, strict=False)
    return module


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors in a `.safetensors` or `.pt` file by name.

    Dictionaries around them (`state_dict`) and prefixes (`module.`) are taken off.

    Raises:
        ModelError: the file is missing, corrupted, or a pickle that would run code.
    """
    file = Path(path)
    if not file.is_file():
        raise ModelError(f"a file of weights was expected at `{file}`, but there is none")
    if file.suffix == ".safetensors":
        return _read_safetensors(file)
    if file.suffix in _PICKLES:
        return _read_torch(file)
    raise ModelError(
        f"weights are read from `.safetensors` or {', '.join(_PICKLES)} files, got `{file.name}`"
    )


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(file))
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"`{file}` is no sound safetensors file ({error}); get it anew") from error


def _read_torch(file: Path) -> dict[str, Tensor]:
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"`{file}` holds more than weights or is corrupted, and opening such a file may run"
            " code; where you trust it, convert it with `safetensors.torch.save_file"
            "(model.state_dict(), 'weights.safetensors')`"
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise ModelError(f"`{file}` is no sound file of weights ({error}); get it anew") from error
    return _unwrapped(found, file)


def _unwrapped(found: Any, file: Path) -> dict[str, Tensor]:
    for key in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(v, Tensor) for v in found.values()):
        raise ModelError(f"`{file}` is expected to hold tensors by name, got other things")
    return {str(name).removeprefix("module."): tensor for name, tensor in found.items()}


def _check_fit(expected: Mapping[str, Tensor], got: Mapping[str, Tensor], file: Path) -> None:
    missing = [k for k in expected if k not in got and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in got if k not in expected]
    shapes = [
        f"{k} (expected {list(expected[k].shape)}, got {list(got[k].shape)})"
        for k in expected
        if k in got and expected[k].shape != got[k].shape
    ]
    faults = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    found = [f"{len(names)} {what}: {_first(names)}" for what, names in faults.items() if names]
    if found:
        raise ModelError(
            f"the weights in `{file}` are not of this model: {'; '.join(found)}; give the model"
            " that they were trained with, and its number of classes"
        )


def _first(names: list[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (", …" if len(names) > count else "")
