"""The lowered forms of one master: each is made once, and told from others by its contents."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fettle.runtimes import lowered

if TYPE_CHECKING:
    import onnx_ir as ir

_AT_ONCE = 2  # of which a session may still be made: what is compared


class Forms:
    """What lowerings make of `model`, as files in `folder`, of which the last two are kept."""

    def __init__(self, model: Path, folder: Path) -> None:
        self.model, self._folder, self._made = model, folder, 0
        self._digests: dict[tuple[str, ...], str] = {}
        self._paths: dict[tuple[str, ...], Path] = {}

    def path(self, steps: Sequence[str]) -> Path:
        """Return the file of the graph that `steps` make; it lasts until two others were asked for.

        Raises:
            FettleError: a step that can't be applied.
        """
        name = tuple(steps)
        if name in self._paths:
            self._paths[name] = self._paths.pop(name)  # the last that will go
            return self._paths[name]
        found = lowered(self.model, name)
        self._paths[name] = self._write(found) if isinstance(found, bytes) else found
        while len(self._paths) > _AT_ONCE:
            self._drop(next(iter(self._paths)))
        return self._paths[name]

    def digest(self, steps: Sequence[str]) -> str:
        """Return a hash of the graph that `steps` make: of its nodes, and of each weight.

        Raises:
            FettleError: a step that can't be applied.
        """
        name = tuple(steps)
        if name not in self._digests:
            self._digests[name] = digest_of(self.path(name))
        return self._digests[name]

    def _write(self, contents: bytes) -> Path:
        self._made += 1
        path = self._folder / f"{self._made}.onnx"
        path.write_bytes(contents)
        return path

    def _drop(self, name: tuple[str, ...]) -> None:
        path = self._paths.pop(name)
        if path.parent == self._folder:
            path.unlink()


def digest_of(path: Path) -> str:
    """Return a hash of an ONNX file's graph, wherever its weights lie and however many there are.

    Each weight's bytes are replaced by their own hash before the rest is written out: protobuf
    holds no more than 2 GiB.
    """
    import onnx_ir as ir

    model = ir.load(path)
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:
                value.const_value = _stand_in(value.const_value)
    return hashlib.sha256(ir.to_proto(model).SerializeToString()).hexdigest()


def _stand_in(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    import onnx_ir as ir

    digest = hashlib.sha256(f"{tensor.dtype} {list(tensor.shape)}\n".encode())
    if tensor.dtype == ir.DataType.STRING:
        digest.update(repr(tensor.numpy().tolist()).encode())
    else:
        digest.update(tensor.tobytes())
    return ir.Tensor(np.frombuffer(digest.digest(), np.uint8), name=tensor.name)
