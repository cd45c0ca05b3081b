"""Engine files: kept beside a header that binds them, opened only where both fit.

An engine holds code for one version of TensorRT and one kind of GPU, and runs as this process: it
is opened only if its SHA-256 is vouched for, by the manifest of a bundle, or by a header in a
folder that nobody but this user can write.

    NAME.engine        the engine
    NAME.json          what it was built with, of and for, and its SHA-256
    timing-KEY.bin     times of kernels that were measured while building
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fettle.core.errors import BundleError
from fettle.core.files import replacing, write_json
from fettle.core.hashing import file_sha256, json_sha256

_FORMAT = 1
_OTHERS = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True)
class Binding:
    """What an engine fits.

    Attributes:
        tensorrt: version that built it, which must run it.
        gpu: name of the GPU.
        capability: its compute capability.
        model: SHA-256 of the graph that it was built of, lowered.
        plan: shapes and workspace that it was built for.
    """

    tensorrt: str
    gpu: str
    capability: str
    model: str
    plan: dict[str, int]

    @property
    def key(self) -> str:
        """A name for files that are bound so."""
        return json_sha256(asdict(self))[:32]

    @property
    def timing_key(self) -> str:
        """A name for what any model's engine shares on this GPU."""
        return json_sha256([self.tensorrt, self.gpu, self.capability])[:16]


def cache_folder() -> Path:
    """Return where engines are kept: `$FETTLE_CACHE`, else the user's cache folder."""
    given = os.environ.get("FETTLE_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return (Path(given) if given else Path(base) / "fettle") / "tensorrt"


def keep(folder: Path, binding: Binding, engine: bytes) -> Path:
    """Write an engine and its header; return the engine's path."""
    _private(folder)
    path = folder / f"{binding.key}.engine"
    with replacing(path) as temporary:
        temporary.write_bytes(engine)
    header = {"format": _FORMAT, "binding": asdict(binding), "sha256": _sha256(engine)}
    write_json(path.with_suffix(".json"), header)
    return path


def kept(folder: Path, binding: Binding) -> bytes | None:
    """Return the engine that was kept in this user's own folder, None where there is none.

    One whose header or hash doesn't fit is no engine of ours: it is built anew, and never opened.
    """
    header = _header(folder / f"{binding.key}.json")
    path = folder / f"{binding.key}.engine"
    if header is None or not path.is_file() or not (_own(folder) and _own(path)):
        return None
    if header.get("binding") != asdict(binding):
        return None
    engine = path.read_bytes()
    return engine if _sha256(engine) == header.get("sha256") else None


def vouched(path: Path, binding: Binding, sha256: str) -> bytes:
    """Return the engine in file `path`, whose hash a bundle's manifest vouches for.

    Raises:
        BundleError: the file is another, or was built for another TensorRT, GPU or model.
    """
    if not path.is_file() or file_sha256(path) != sha256:
        raise BundleError(f"{path} is not the engine that was vouched for; build the bundle anew")
    found = (_header(path.with_suffix(".json")) or {}).get("binding", {})
    wanted = asdict(binding)
    wrong = [name for name in wanted if found.get(name) != wanted[name]]
    if wrong:
        shown = "; ".join(f"{n} {found.get(n)!r}, here {wanted[n]!r}" for n in wrong)
        raise BundleError(f"{path} was built for {shown}: it is built anew from the ONNX file")
    return path.read_bytes()


def keep_timings(folder: Path, binding: Binding, timings: bytes) -> None:
    """Write the timing cache, under a hash of its contents."""
    _private(folder)
    with replacing(folder / f"timing-{binding.timing_key}.bin") as temporary:
        temporary.write_bytes(hashlib.sha256(timings).digest() + timings)


def kept_timings(folder: Path, binding: Binding) -> bytes:
    """Return the timing cache for this version and GPU; empty where there is no sound one."""
    path = folder / f"timing-{binding.timing_key}.bin"
    if not path.is_file() or not (_own(folder) and _own(path)):
        return b""
    contents = path.read_bytes()
    sound = hashlib.sha256(contents[32:]).digest() == contents[:32]
    return contents[32:] if sound else b""


def _private(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)


def _own(path: Path) -> bool:
    """Say whether nobody but this user (or the system's own) can write here."""
    if not hasattr(os, "getuid"):
        return True
    found = path.stat()
    return found.st_uid in (os.getuid(), 0) and not found.st_mode & _OTHERS


def _header(path: Path) -> dict[str, Any] | None:
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return header if isinstance(header, dict) and header.get("format") == _FORMAT else None


def _sha256(contents: bytes) -> str:
    return hashlib.sha256(contents).hexdigest()
