"""Engine files: written beside a header that binds them, opened only where both fit.

An engine holds code for one version of TensorRT and one kind of GPU, and runs as this process: it
is opened only if its SHA-256 is vouched for, by the manifest of a bundle (here), or by itself in a
folder that is this user's and that nobody else can write (`_cache.py`).

    NAME.engine        the engine
    NAME.json          what it was built with, of and for
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fettle.core.errors import BundleError
from fettle.core.files import replacing, write_json
from fettle.core.hashing import json_sha256

_FORMAT = 1


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
        return "timing-" + json_sha256([self.tensorrt, self.gpu, self.capability])[:16]


def keep(folder: Path, binding: Binding, engine: bytes) -> Path:
    """Write an engine and its header; return the engine's path."""
    path = folder / f"{binding.key}.engine"
    with replacing(path) as temporary:
        temporary.write_bytes(engine)
    write_json(path.with_suffix(".json"), {"format": _FORMAT, "binding": asdict(binding)})
    return path


def vouched(path: Path, binding: Binding, sha256: str) -> bytes:
    """Return the engine in file `path`, whose hash a bundle's manifest vouches for.

    Raises:
        BundleError: the file is another, or was built for another TensorRT, GPU or model.
    """
    engine = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(engine).hexdigest() != sha256:
        raise BundleError(f"{path} is not the engine that was vouched for; build the bundle anew")
    found = (_header(path.with_suffix(".json")) or {}).get("binding", {})
    wanted = asdict(binding)
    wrong = [name for name in wanted if found.get(name) != wanted[name]]
    if wrong:
        shown = "; ".join(f"{n} {found.get(n)!r}, here {wanted[n]!r}" for n in wrong)
        raise BundleError(f"{path} was built for {shown}: it is built anew from the ONNX file")
    return engine


def _header(path: Path) -> dict[str, Any] | None:
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return header if isinstance(header, dict) and header.get("format") == _FORMAT else None
