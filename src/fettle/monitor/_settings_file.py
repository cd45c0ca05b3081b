"""Settings that people write: a YAML or JSON file, read into plain values."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

from fettle.core.errors import DataError, MissingError

_YAML = (".yaml", ".yml")


def read_settings(path: Path) -> dict[str, Any]:
    """Return the object that a file holds: JSON, or YAML where its name ends so.

    Raises:
        DataError: there is no such file, or it holds something else.
        MissingError: YAML, without PyYAML.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"a file of YAML or JSON was expected at {path} ({error})") from error
    found = _yaml(path, text) if path.suffix.lower() in _YAML else _json(path, text)
    if not isinstance(found, dict):
        raise DataError(f"{path} expects names with values, got {type(found).__name__}")
    return found


def refuse_unknown(what: str, given: dict[str, Any], known: tuple[str, ...]) -> None:
    """Raise DataError for a name that means nothing: a typing error would be passed over."""
    for name in given:
        if name not in known:
            raise DataError(f"{what} knows {', '.join(known)}, not `{name}`")


def _json(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(f"{path} expects JSON, got something else: {error}") from error


def _yaml(path: Path, text: str) -> Any:
    try:
        yaml: Any = importlib.import_module("yaml")
    except ImportError:
        raise MissingError("reading YAML needs PyYAML", "pip install pyyaml") from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise DataError(f"{path} expects YAML, got something else: {error}") from error
