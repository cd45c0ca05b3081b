"""ONNX files from elsewhere: checked as they come in. Nothing here needs torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from fettle.core.errors import ModelError


def is_onnx(spec: str | Path) -> bool:
    """Say whether `spec` is the path of an ONNX file."""
    return str(spec).endswith(".onnx")


def check_onnx(path: str | Path) -> Any:
    """Return the graph in file `path` as a ModelProto, found sound, its weights beside it loaded.

    Raises:
        ModelError: the file is missing, is no valid ONNX, or refers to files outside its folder.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    file = Path(path)
    if not file.is_file():
        raise ModelError(f"an ONNX file was expected at `{file}`, but there is none")
    try:
        model = onnx.load(file, load_external_data=False)
        _check_external(model, file)
        onnx.checker.check_model(str(file))
        return onnx.load(file)
    except (DecodeError, onnx.checker.ValidationError, ValueError, OSError, RuntimeError) as error:
        raise ModelError(
            f"`{file}` is no valid ONNX model ({_first_line(error)}); export it anew"
        ) from error


def onnx_files(path: str | Path) -> list[Path]:
    """Return the ONNX file `path` and the files beside it that hold its weights.

    Raises:
        ModelError: as `check_onnx`, but for faults of the graph itself.
    """
    import onnx
    from google.protobuf.message import DecodeError

    file = Path(path)
    if not file.is_file():
        raise ModelError(f"an ONNX file was expected at `{file}`, but there is none")
    try:
        model = onnx.load(file, load_external_data=False)
    except (DecodeError, ValueError, OSError) as error:
        raise ModelError(
            f"`{file}` is no valid ONNX model ({_first_line(error)}); export it anew"
        ) from error
    _check_external(model, file)
    return [file, *sorted({file.parent / location for _, location in _locations(model.graph)})]


def _check_external(model: Any, file: Path) -> None:
    folder = file.resolve().parent
    for name, location in _locations(model.graph):
        parts = PurePosixPath(location.replace("\\", "/"))
        inside = not parts.is_absolute() and ".." not in parts.parts
        target = folder / location
        if not inside or not target.resolve().is_relative_to(folder):
            raise ModelError(
                f"the tensor `{name}` of `{file}` lies in `{location}`, outside the model's"
                " folder, which is refused; put the data beside the model"
            )
        if not target.is_file():
            raise ModelError(f"`{file}` keeps `{name}` in `{location}`, which is not beside it")


def _locations(graph: Any) -> Iterator[tuple[str, str]]:
    """Yield every tensor that is kept in another file, in subgraphs too."""
    for tensor in _graph_tensors(graph):
        for entry in tensor.external_data:
            if entry.key == "location":
                yield tensor.name, entry.value


def _graph_tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                if inner.node:
                    yield from _graph_tensors(inner)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
