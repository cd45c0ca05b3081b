"""Size: bytes on disk of what is shipped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fettle.core.errors import ModelError
from fettle.core.measurement import Measurement
from fettle.measure._graph import external_files, find_model, read
from fettle.measure._metric import Artifact, Metric


def onnx_bytes(path: str | Path) -> int:
    """Return the bytes of an ONNX file (or a bundle's model) and of its external data.

    Raises:
        ModelError: it is missing, no ONNX, or its external data is missing or outside its folder.
    """
    file = find_model(path)
    files = [file, *external_files(read(file), file.parent)]
    return sum(part.stat().st_size for part in files)


def file_bytes(path: str | Path) -> int:
    """Return the bytes of a file, or of all files in a folder.

    Raises:
        ModelError: nothing is there.
    """
    root = Path(path)
    if not root.exists():
        raise ModelError(f"a file or a folder was expected at `{root}`, found nothing")
    files = [root] if root.is_file() else [p for p in root.rglob("*") if p.is_file()]
    return sum(file.stat().st_size for file in files)


@dataclass(frozen=True, kw_only=True)
class Size(Metric):
    """Bytes of the ONNX master, external data included."""

    def measure(self, subject: Artifact) -> Measurement:
        """Count the bytes."""
        return Measurement.exact("size", onnx_bytes(subject.path), "B")
