"""The bundle: one folder that holds a proven artifact and everything that vouches for it.

    manifest.json   what it is, the SHA-256 of every other file, measurements, verdict, lineage
    model.onnx      the master graph (and model.onnx.data when it is large)
    golden.npz      inputs and the outputs that they gave on the machine of the proof
    reference.npz   samples of inputs and outputs: what drift is measured against
    card.md         the model card; report.html the report

Nothing in it is a pickle. Opening one verifies every hash and refuses paths that leave the folder.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from fettle.core.arrays import Arrays, TensorSpec
from fettle.core.errors import BundleError
from fettle.core.files import replacing_folder, write_json
from fettle.core.hashing import file_sha256

SCHEMA = 1
MANIFEST = "manifest.json"
MODEL = "model.onnx"
_REQUIRED = ("schema", "files", "inputs", "outputs", "recipe")


@dataclass(frozen=True)
class Manifest:
    """The contents of `manifest.json`, typed where others rely on it.

    `lowering` maps a runtime's name to the graph passes that its session applies; `golden` holds
    the tolerance that a replay of the golden inputs must keep.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    recipe: str
    runtime: str = ""
    labels: tuple[str, ...] = ()
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    lineage: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    measurements: Mapping[str, Any] = field(default_factory=dict)
    verdict: Mapping[str, Any] | None = None
    checks: tuple[Mapping[str, Any], ...] = ()
    lowering: Mapping[str, list[str]] = field(default_factory=dict)
    golden: Mapping[str, float] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    schema: int = SCHEMA

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        plain["inputs"] = [spec.to_json() for spec in self.inputs]
        plain["outputs"] = [spec.to_json() for spec in self.outputs]
        return {"schema": plain.pop("schema"), **plain}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Manifest:
        """Read the JSON form; fields that a newer minor version added are ignored."""
        known = {name: data[name] for name in cls.__dataclass_fields__ if name in data}
        for name in ("inputs", "outputs"):
            specs = (TensorSpec(s["name"], s["dtype"], tuple(s["shape"])) for s in known[name])
            known[name] = tuple(specs)
        return cls(**{**known, "labels": tuple(known.get("labels", ()))})


@dataclass(frozen=True)
class Bundle:
    """An opened bundle, its hashes verified."""

    path: Path
    manifest: Manifest

    @property
    def model_path(self) -> Path:
        """The ONNX master."""
        return self.path / MODEL

    def golden(self) -> tuple[Arrays, Arrays]:
        """Return the golden inputs and the outputs that they gave when the bundle was proven."""
        arrays = load_arrays(self.path / "golden.npz")
        return _section(arrays, "input/"), _section(arrays, "output/")

    def reference(self) -> Arrays:
        """Return the samples that drift is measured against."""
        return load_arrays(self.path / "reference.npz")

    @classmethod
    def open(cls, path: str | Path) -> Bundle:
        """Open the bundle in folder `path` and verify it.

        Raises:
            BundleError: it is no bundle, a file is missing, changed, unlisted, or lies outside.
        """
        root = Path(path)
        manifest = _read_manifest(root)
        _verify(root, manifest.files)
        return cls(root, manifest)


def write_bundle(path: Path, manifest: Manifest, source: Path) -> Bundle:
    """Make the bundle `path` of the files in folder `source`, whole or not at all.

    Returns:
        The bundle as written, with the hash of every file in its manifest.
    """
    names = sorted(p.relative_to(source).as_posix() for p in source.rglob("*") if p.is_file())
    if MODEL not in names:
        raise BundleError(f"a bundle needs `{MODEL}`; {source} holds {names}")
    with replacing_folder(path) as temporary:
        for name in names:
            target = temporary / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((source / name).read_bytes())
        hashes = {name: file_sha256(temporary / name) for name in names}
        sealed = Manifest(**{**_fields(manifest), "files": hashes})
        write_json(temporary / MANIFEST, sealed.to_json())
    return Bundle(path, sealed)


def is_bundle(path: str | Path) -> bool:
    """Say whether `path` is a folder with a manifest."""
    return (Path(path) / MANIFEST).is_file()


def load_arrays(path: Path) -> Arrays:
    """Return the arrays of an `.npz` file; object arrays (pickles) are refused."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise BundleError(f"{path} can't be read as arrays ({error}); build it anew") from error


def _section(arrays: Arrays, prefix: str) -> Arrays:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def _fields(manifest: Manifest) -> dict[str, Any]:
    return {name: getattr(manifest, name) for name in manifest.__dataclass_fields__}


def _read_manifest(root: Path) -> Manifest:
    file = root / MANIFEST
    if not file.is_file():
        raise BundleError(
            f"`{root}` is no bundle: a folder with `{MANIFEST}` was expected; make one with"
            " `fettle compress` or `fettle demo`"
        )
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        missing = [name for name in _REQUIRED if name not in data]
        if missing:
            raise BundleError(f"{file} lacks {', '.join(missing)}; build the bundle anew")
        if data["schema"] != SCHEMA:
            raise BundleError(
                f"{file} has schema {data['schema']}, this fettle reads {SCHEMA}: upgrade fettle"
            )
        return Manifest.from_json(data)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BundleError(f"{file} is corrupted ({error}); build the bundle anew") from error


def _verify(root: Path, files: Mapping[str, str]) -> None:
    for name, expected in files.items():
        inside = PurePosixPath(name)
        target = root / inside
        leaves = inside.is_absolute() or ".." in inside.parts
        if leaves or not target.resolve().is_relative_to(root.resolve()):
            raise BundleError(f"{root / MANIFEST} lists `{name}`, which leaves the bundle")
        if not target.is_file():
            raise BundleError(f"`{name}` is missing from {root}; copy the bundle anew")
        if file_sha256(target) != expected:
            raise BundleError(
                f"`{name}` in {root} is not what its manifest vouches for (SHA-256 differs):"
                " it was corrupted or changed; build or copy the bundle anew"
            )
    present = {p.relative_to(root).as_posix() for p in root.rglob("*") if not p.is_dir()}
    stray = sorted(present - set(files) - {MANIFEST})
    if stray:
        raise BundleError(f"{root} holds files that its manifest doesn't list: {', '.join(stray)}")
