"""Engines in a bundle: listed in its manifest, so that their hashes are vouched for.

They lie in `engines/`, beside the ONNX file that they were built of, which stays: on another
TensorRT or another GPU an engine is built anew from it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from fettle.core.bundle import MANIFEST, Bundle, is_bundle, write_bundle
from fettle.runtimes._tensorrt_store import Binding, vouched

FOLDER = "engines"


def engine_beside(model: Path, binding: Binding) -> bytes | None:
    """Return the engine that the bundle of `model` holds for this binding, None without one.

    Raises:
        BundleError: the bundle is corrupted, or the engine not what its manifest vouches for.
    """
    root = model.parent
    if not is_bundle(root):
        return None
    name = f"{FOLDER}/{binding.key}.engine"
    sha256 = Bundle.open(root).manifest.files.get(name)
    return None if sha256 is None else vouched(root / name, binding, sha256)


def with_more(bundle: Path, add: Callable[[Path], None]) -> Bundle:
    """Let `add` put files into a copy of a bundle, then put that in its place, whole or not at all.

    Raises:
        BundleError: the bundle is corrupted.
    """
    opened = Bundle.open(bundle)
    with tempfile.TemporaryDirectory(prefix="fettle-engine-") as scratch:
        copy = Path(scratch) / "bundle"
        shutil.copytree(bundle, copy, ignore=shutil.ignore_patterns(MANIFEST))
        add(copy)
        return write_bundle(bundle, opened.manifest, copy)
