"""Models from the Hugging Face hub: from this machine's cache, else fetched, or refused soon."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from fettle.core.errors import MissingError, ModelError

_NAME = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")
_FILES = ["config.json", "*.safetensors", "*.safetensors.index.json"]
_SECONDS = 5.0


def is_hub_name(name: str) -> bool:
    """Say whether `name` has the form `owner/name`."""
    return _NAME.fullmatch(name) is not None and not name.startswith(".")


def fetch(name: str) -> Path:
    """Return the folder that holds the model's configuration and weights.

    What the cache of this machine holds is taken from there. A hub that doesn't answer within
    5 seconds counts as not reachable.

    Raises:
        MissingError: it is not in the cache, and the hub can't be reached.
        ModelError: the hub has no such model, or doesn't give it to everybody.
    """
    import huggingface_hub as hub

    found = _cached(hub, name)
    if found is not None:
        return found
    try:
        hub.HfApi().model_info(name, timeout=_SECONDS)
        return Path(hub.snapshot_download(name, allow_patterns=_FILES, etag_timeout=_SECONDS))
    except hub.errors.HfHubHTTPError as error:
        raise ModelError(
            f"the hub gives no model `{name}` ({_first_line(error)}); check the name, or give a"
            " folder with its `config.json` and `model.safetensors`"
        ) from error
    except Exception as error:  # whatever the network does
        raise MissingError(
            f"`hf:{name}` is neither a folder nor in this machine's cache, and the hub can't be"
            f" reached ({type(error).__name__}: {_first_line(error)})",
            f"where there is a network, run `hf download {name}`, copy the folder here and give"
            " `hf:FOLDER`",
        ) from error


def _cached(hub: Any, name: str) -> Path | None:
    try:
        folder = Path(hub.snapshot_download(name, allow_patterns=_FILES, local_files_only=True))
    except (OSError, ValueError):
        return None
    return (
        folder if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")) else None
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
