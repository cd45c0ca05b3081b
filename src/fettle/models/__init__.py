"""Where a model comes from, and how one is kept. Importing this needs no torch; loading does."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fettle.core.errors import MissingError
from fettle.core.shelf import INSTALL
from fettle.models._onnx_file import check_onnx, is_onnx, onnx_files

if TYPE_CHECKING:
    from fettle.models._live import keep_live
    from fettle.models._load import load, rebuild
    from fettle.models._origin import Origin, origin_of
    from fettle.models._store import open_folder as open  # noqa: A004 - always `models.open`
    from fettle.models._store import save
    from fettle.models._structure import restructure, structure
    from fettle.models._weights import load_weights, read_weights, save_weights

__all__ = [
    "Origin",
    "check_onnx",
    "is_onnx",
    "keep_live",
    "load",
    "load_weights",
    "onnx_files",
    "open",
    "origin_of",
    "read_weights",
    "rebuild",
    "restructure",
    "save",
    "save_weights",
    "structure",
]

_LAZY = {
    "Origin": ("_origin", "Origin"),
    "keep_live": ("_live", "keep_live"),
    "load": ("_load", "load"),
    "load_weights": ("_weights", "load_weights"),
    "open": ("_store", "open_folder"),
    "origin_of": ("_origin", "origin_of"),
    "read_weights": ("_weights", "read_weights"),
    "rebuild": ("_load", "rebuild"),
    "restructure": ("_structure", "restructure"),
    "save": ("_store", "save"),
    "save_weights": ("_weights", "save_weights"),
    "structure": ("_structure", "structure"),
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module `fettle.models` has no `{name}`")
    module, attribute = _LAZY[name]
    try:
        return getattr(importlib.import_module(f"fettle.models.{module}"), attribute)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in INSTALL:
            raise
        raise MissingError(
            f"torch models need the package `{package}`", INSTALL[package]
        ) from error
