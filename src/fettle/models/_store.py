"""A module as a folder: its origin and structure as JSON, its weights as safetensors."""

from __future__ import annotations

import json
from pathlib import Path

from torch import nn

from fettle.core.errors import ModelError
from fettle.core.files import replacing_folder, write_json
from fettle.models._load import rebuild
from fettle.models._origin import Origin, mark, origin_of
from fettle.models._structure import restructure, structure
from fettle.models._weights import load_weights, save_weights

STRUCTURE, WEIGHTS = "structure.json", "weights.safetensors"


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
    module = restructure(rebuild(origin), wanted)
    return mark(load_weights(module, Path(folder) / WEIGHTS), origin)
