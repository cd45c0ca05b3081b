"""The bundle: one folder that holds a proven artifact and everything that vouches for it.

    manifest.json   what it is, the SHA-256 of every other file, measurements, verdict, lineage
    model.onnx      the master graph (and model.onnx.data when it is large)
    golden.npz      inputs and the outputs that they gave on the machine of the proof
    reference.npz   samples of inputs and outputs: what drift is measured against
    card.md         the model card; report.html the report

Nothing in it is a pickle. Opening one verifies every hash and refuses paths that leave the folder.
The manifest itself is sealed with a hash of its own contents: a number that was edited by hand is
noticed. A seal is no signature, though: who means to deceive can compute it anew.
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
from fettle.core.hashing import file_sha256, json_sha256

SCHEMA = 1
MANIFEST = "manifest.json"
MODEL = "model.onnx"
_SEAL = "seal"
_REQUIRED = ("schema", _SEAL, "files", "inputs", "outputs", "recipe")


@dataclass(frozen=True)
class Manifest:
    """The contents of `manifest.json`, typed where others rely on it.

    `lowering` maps a runtime's name to the graph passes that its session applies; `golden` holds
    the tolerance that a replay of the golden inputs must keep; `extra` holds fields that this
    version doesn't know, so that they survive.
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
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        plain["inputs"] = [spec.to_json() for spec in self.inputs]
        plain["outputs"] = [spec.to_json() for spec in self.outputs]
        return {"schema": plain.pop("schema"), **plain, **plain.pop("extra")}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Manifest:
        """Read the JSON form; what a newer minor version added is kept in `extra`."""
        known = {name: data[name] for name in cls.__dataclass_fields__ if name in data}
        known["extra"] = {k: v for k, v in data.items() if k not in known and k != _SEAL}
        for name in ("inputs", "outputs"):
            specs = (TensorSpec(s["name"], s["dtype"], tuple(s["shape"])) for s in known[name])
            known[name] = tuple(specs)
        for name in ("labels", "checks"):
            known[name] = tuple(known.get(name, ()))
        return cls(**known)


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
            BundleError: it is no bundle, its manifest was edited, or a file is missing, changed,
                unlisted, or lies outside.
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
        write_manifest(temporary, sealed)
    return Bundle(path, sealed)


def write_manifest(root: Path, manifest: Manifest) -> None:
    """Write the manifest of the bundle in folder `root`, sealed."""
    contents = manifest.to_json()
    write_json(root / MANIFEST, {**contents, _SEAL: json_sha256(contents)})


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
        if data.get("schema", SCHEMA) != SCHEMA:
            raise BundleError(
                f"{file} has schema {data['schema']}, this fettle reads {SCHEMA}: upgrade fettle"
            )
        missing = [name for name in _REQUIRED if name not in data]
        if missing:
            raise BundleError(f"{file} lacks {', '.join(missing)}; build the bundle anew")
        _check_seal(file, data)
        _check_files(file, data["files"])
        return Manifest.from_json(data)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BundleError(f"{file} is corrupted ({error}); build the bundle anew") from error


def _check_seal(file: Path, data: Mapping[str, Any]) -> None:
    if json_sha256({k: v for k, v in data.items() if k != _SEAL}) != data[_SEAL]:
        raise BundleError(
            f"{file} is not what was sealed when the bundle was written: it was corrupted or"
            " edited; build or copy the bundle anew"
        )


def _check_files(file: Path, files: Mapping[str, Any]) -> None:
    if MODEL not in files:
        raise BundleError(f"{file} vouches for no `{MODEL}`; build the bundle anew")
    for name, expected in files.items():
        inside = PurePosixPath(name)
        if inside.is_absolute() or ".." in inside.parts or "\0" in name:
            raise BundleError(f"{file} lists {name!r}, which leaves the bundle")
        if not isinstance(expected, str):
            raise BundleError(f"{file} has no SHA-256 for `{name}`; build the bundle anew")


def _verify(root: Path, files: Mapping[str, str]) -> None:
    for name, expected in files.items():
        target = root / name
        if not target.resolve().is_relative_to(root.resolve()):
            raise BundleError(f"{root / MANIFEST} lists `{name}`, which leaves the bundle")
        if not target.is_file():
            raise BundleError(f"`{name}` is missing from {root}; copy the bundle anew")
        if file_sha256(target) != expected:
            raise BundleError(
                f"`{name}` in {root} is not what its manifest vouches for (SHA-256 differs):"
                " it was corrupted or changed; build or copy the bundle anew"
            )
    found = (p for p in root.rglob("*") if p.is_symlink() or not p.is_dir())
    present = {p.relative_to(root).as_posix() for p in found}
    stray = sorted(present - set(files) - {MANIFEST})
    if stray:
        raise BundleError(f"{root} holds files that its manifest doesn't list: {', '.join(stray)}")
