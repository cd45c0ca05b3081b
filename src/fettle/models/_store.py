"""A module as a folder: its origin and structure as JSON, its weights as safetensors.

Buffers that a state dictionary leaves out, such as tables of positions, lie in a file of their own:
some modules make them at the first forward pass, and take one of the right shape for made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from fettle.core.errors import ModelError
from fettle.core.files import replacing_folder, write_json
from fettle.models._load import rebuild
from fettle.models._origin import Origin, mark, origin_of
from fettle.models._structure import restructure, structure
from fettle.models._weights import load_weights, read_weights, save_weights, write_tensors

STRUCTURE, WEIGHTS = "structure.json", "weights.safetensors"
BUFFERS = "buffers.safetensors"  # only where there are any


def save(module: nn.Module, folder: str | Path) -> None:
    """Write `module` to `folder`, whole or not at all.

    Raises:
        ModelError: it doesn't say where it came from, so that it couldn't be opened again.
        StorageError: the disk is full, or the folder can't be written.
    """
    record = {"origin": origin_of(module).to_json(), "structure": structure(module)}
    with replacing_folder(Path(folder)) as temporary:
        write_json(temporary / STRUCTURE, record)
        save_weights(module, temporary / WEIGHTS)
        if tables := unsaved_buffers(module):
            write_tensors(tables, temporary / BUFFERS)


def open_folder(folder: str | Path) -> nn.Module:
    """Return the module that `save` wrote to `folder`, on the CPU, in evaluation mode.

    Raises:
        ModelError: the folder is none that `save` wrote, or it is damaged.
    """
    file = Path(folder) / STRUCTURE
    if not file.is_file():
        raise ModelError(f"`{folder}` is no saved model: it has no `{STRUCTURE}`")
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        origin = Origin.from_json(record["origin"])
        wanted = record["structure"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"`{file}` is damaged ({error!r}); save the model anew") from error
    fresh = rebuild(origin)
    shapes = {name: table.shape for name, table in unsaved_buffers(fresh).items()}
    module = restructure(fresh, wanted)
    load_weights(module, Path(folder) / WEIGHTS)
    _fill_tables(module, shapes, Path(folder))
    return mark(module, origin)


def unsaved_buffers(module: nn.Module) -> dict[str, Tensor]:
    """Return the buffers that `state_dict` leaves out, by name."""
    saved = module.state_dict().keys()
    named = module.named_buffers(remove_duplicate=False)
    return {name: buffer for name, buffer in named if name not in saved}


def _fill_tables(module: nn.Module, fresh: Mapping[str, torch.Size], folder: Path) -> None:
    """Put the buffers of `folder` into `module`; `fresh` are their shapes as the code makes them.

    Raises:
        ModelError: the folder lacks one whose shape was changed: what is in it isn't known.
    """
    file = folder / BUFFERS
    kept = read_weights(file) if file.is_file() else {}
    for name, buffer in unsaved_buffers(module).items():
        if name in kept and kept[name].shape == buffer.shape:
            parent, _, leaf = name.rpartition(".")
            module.get_submodule(parent)._buffers[leaf] = kept[name].to(buffer.dtype)
        elif buffer.shape != fresh.get(name):
            raise ModelError(
                f"`{folder}` doesn't hold the buffer `{name}` of shape {list(buffer.shape)}, which"
                " the state dictionary leaves out; save the model anew"
            )
