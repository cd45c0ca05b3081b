"""Between named numpy arrays and the arguments and results of a torch module."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fettle.core.arrays import Arrays, TensorSpec
from fettle.core.errors import InputError, ModelError
from fettle.models import origin_of
from fettle.runtimes._matching import Matcher

OUTPUT = "logits"
_HALVES = (torch.bfloat16, torch.float16)
_IMAGE = "input"  # what every task of images calls its input


@dataclass(frozen=True)
class Call:
    """Tensors for a module, in order; `names[i]` is None where one goes by position."""

    tensors: tuple[Tensor, ...]
    names: tuple[str | None, ...]

    @property
    def shapes(self) -> tuple[tuple[Any, ...], ...]:
        """Tell one form of call from another."""
        return tuple((name, t.dtype, *t.shape) for name, t in zip(self.names, self.tensors))  # noqa: B905


class Inputs:
    """The inputs that a module takes.

    A model of `fettle.models.load` says which task it was built for, so that its inputs have
    names, types and shapes. Any other module's arguments have the names of its `forward` alone:
    arrays under these names go where they belong, and arrays under other names go by position.
    """

    def __init__(self, module: nn.Module) -> None:
        self.specs = _specs(module)
        self._match = Matcher(self.specs)
        self._least, self._accepted, self._any = _parameters(module)

    def call(self, inputs: Arrays) -> Call:
        """Return the tensors of `inputs`, which share their memory where torch can.

        Raises:
            InputError: an input is missing, unknown, or of another type or shape.
        """
        if self.specs:
            found = self._match(inputs)
            tensors = tuple(_tensor(found[spec.name]) for spec in self.specs)
            return Call(tensors, (None,) * len(tensors))
        return Call(tuple(map(_tensor, inputs.values())), self._places(list(inputs)))

    def example(self) -> Arrays | None:
        """Return two rows of ones (zeros of whole numbers), or None where shapes are unknown."""
        if not self.specs or any(size < 0 for spec in self.specs for size in spec.shape[1:]):
            return None
        return {
            s.name: np.full((2, *s.shape[1:]), float(s.dtype.startswith("float")), s.dtype)
            for s in self.specs
        }

    def _places(self, names: list[str]) -> tuple[str | None, ...]:
        known = [name for name in names if name in self._accepted]
        most = len(names) if self._any else len(self._accepted)
        if not self._least <= len(names) <= most or (known and len(known) < len(names) > 1):
            raise InputError(
                f"the inputs {list(self._accepted)} were expected, at least the first"
                f" {self._least} of them, got {names}"
            )
        return tuple(names) if known else (None,) * len(names)


def _specs(module: nn.Module) -> tuple[TensorSpec, ...]:
    try:
        origin = origin_of(module)
    except ModelError:
        return ()
    if origin.image is not None:
        return (TensorSpec(_IMAGE, "float32", (-1, *origin.image)),)
    return tuple(origin.inputs)


def _parameters(module: nn.Module) -> tuple[int, tuple[str, ...], bool]:
    """Return how many arguments are needed, the names that are taken, and whether any goes."""
    found = inspect.signature(module.forward).parameters.values()
    plain = [p for p in found if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    needed = sum(p.default is p.empty for p in plain)
    return needed, tuple(p.name for p in plain), len(plain) < len(found)


def _tensor(array: np.ndarray) -> Tensor:
    """Share the array's memory where torch can: not when it is read-only or strided backwards."""
    if not isinstance(array, np.ndarray):
        raise InputError(f"an input expects a numpy array, got {type(array).__name__}")
    try:
        return torch.from_numpy(np.require(array, requirements=["C", "W"]))
    except TypeError as error:
        raise InputError(f"torch has no tensors of {array.dtype}; give numbers") from error


def arrays_of(outputs: Any, shared: set[int]) -> dict[str, np.ndarray]:
    """Return the tensors of a module's outputs by name, 16-bit floats as float32.

    A lone tensor, and the first of a tuple, is `logits`, as in an exported graph; the others of a
    tuple are `output_1` and so on; those of a mapping or a dataclass keep their names. What isn't
    a tensor is left out. Tensors whose memory is in `shared` are copied.

    Raises:
        ModelError: there is no tensor.
    """
    found = {name: _array(tensor, shared) for name, tensor in _named(outputs)}
    if not found:
        raise ModelError(f"the module returned {type(outputs).__name__} without a tensor in it")
    return found


def specs_of(outputs: Arrays) -> tuple[TensorSpec, ...]:
    """Describe outputs, their first dimension free."""
    return tuple(
        TensorSpec(name, str(array.dtype), (-1, *array.shape[1:]) if array.ndim else ())
        for name, array in outputs.items()
    )


def tensors_of(outputs: Any) -> list[Tensor]:
    """Return the tensors of a module's outputs, in order."""
    return [tensor for _, tensor in _named(outputs)]


def _named(outputs: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(outputs, Tensor):
        yield prefix or OUTPUT, outputs
    elif isinstance(outputs, Mapping):
        for key, value in outputs.items():
            yield from _named(value, f"{prefix}.{key}" if prefix else str(key))
    elif is_dataclass(outputs) and not isinstance(outputs, type):
        for field in fields(outputs):
            name = f"{prefix}.{field.name}" if prefix else field.name
            yield from _named(getattr(outputs, field.name), name)
    elif isinstance(outputs, Sequence) and not isinstance(outputs, str | bytes):
        for index, value in enumerate(outputs):
            first = OUTPUT if index == 0 else f"output_{index}"
            yield from _named(value, f"{prefix}.{index}" if prefix else first)


def _array(tensor: Tensor, shared: set[int]) -> np.ndarray:
    plain = tensor.detach()
    if plain.is_cuda or plain.dtype in _HALVES:
        plain = plain.to("cpu", torch.float32 if plain.dtype in _HALVES else plain.dtype)
    elif plain.untyped_storage().data_ptr() in shared:
        plain = plain.clone()
    return np.asarray(plain.resolve_conj().resolve_neg().numpy())
