"""What a model takes and gives, in the protocol's words, and the check of what came."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fettle.core.arrays import Arrays, TensorSpec
from fettle.core.bundle import Manifest
from fettle.core.errors import BundleError, nearest
from fettle.serve.errors import BadRequest
from fettle.serve.protocol.datatypes import BINARY_ONLY, BYTES, FLOATS, NUMPY, name_of
from fettle.serve.protocol.request import Wanted
from fettle.serve.protocol.wording import listed, shown


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs of a model, the labels of its classes and the largest batch.

    `max_batch` is None where nothing bounds a batch.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    labels: tuple[str, ...] = ()
    max_batch: int | None = None

    @classmethod
    def of(cls, manifest: Manifest) -> Signature:
        """Return what a bundle's manifest says.

        Raises:
            BundleError: an input or output of a type that the protocol doesn't know.
        """
        for spec in (*manifest.inputs, *manifest.outputs):
            _refuse_unknown_type(spec)
        return cls(manifest.inputs, manifest.outputs, manifest.labels)

    @property
    def batched(self) -> bool:
        """Whether every input has a free first dimension: the batch."""
        return all(spec.shape[:1] == (-1,) for spec in self.inputs)

    def input(self, name: str) -> TensorSpec:
        """Return the input called `name`, or raise BadRequest."""
        return _named("input", name, self._inputs)

    def output(self, name: str) -> TensorSpec:
        """Return the output called `name`, or raise BadRequest."""
        return _named("output", name, self._outputs)

    def admit(self, name: str, datatype: str, shape: Sequence[int]) -> TensorSpec:
        """Return the input called `name` if it takes this type and shape, else raise BadRequest."""
        spec = self.input(name)
        if datatype != name_of(spec.dtype):
            raise BadRequest(
                f"input `{name}` expects the datatype {name_of(spec.dtype)}, got {shown(datatype)}"
            )
        fits = len(shape) == len(spec.shape) and all(map(_fits, spec.shape, shape))
        if not fits:
            raise BadRequest(
                f"input `{name}` expects the shape {list(spec.shape)} (-1: any size from 1), got"
                f" {shown(list(shape))}"
            )
        if self.max_batch and spec.shape[:1] == (-1,) and shape[0] > self.max_batch:
            raise BadRequest(
                f"input `{name}` expects a batch of 1 to {self.max_batch} rows, got {shape[0]}:"
                " send several requests"
            )
        return spec

    def check(self, inputs: Arrays) -> int:
        """Return the batch size of `inputs`, 1 where the model has no batch dimension.

        Raises:
            BadRequest: an input is missing, unknown, of another type or shape, empty, or holds a
                number that isn't finite; or their batch sizes differ.
        """
        for name, array in inputs.items():
            self.admit(name, _type_of(array), array.shape)
            _refuse_non_finite(name, array)
        missing = [spec.name for spec in self.inputs if spec.name not in inputs]
        if missing:
            raise BadRequest(
                f"the inputs {listed(self._inputs)} are expected, {listed(missing)} is missing"
            )
        return self._batch(inputs)

    def check_outputs(self, wanted: Iterable[Wanted], binary_default: bool = True) -> None:
        """Raise BadRequest unless the model can give what is wanted.

        Args:
            wanted: the outputs that were named; none asks for all.
            binary_default: whether all go as bytes where none was named.
        """
        named = tuple(wanted)
        names = [each.name for each in named]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise BadRequest(f"each output was expected once, got {shown(twice)} twice")
        for each in named or [Wanted(spec.name, binary_default) for spec in self.outputs]:
            _refuse_impossible(self.output(each.name), each)

    def describe(self) -> dict[str, list[dict[str, Any]]]:
        """Return `inputs` and `outputs` as the protocol's model metadata has them."""
        return {"inputs": _described(self.inputs), "outputs": _described(self.outputs)}

    @cached_property
    def _inputs(self) -> Mapping[str, TensorSpec]:
        return {spec.name: spec for spec in self.inputs}

    @cached_property
    def _outputs(self) -> Mapping[str, TensorSpec]:
        return {spec.name: spec for spec in self.outputs}

    def _batch(self, inputs: Arrays) -> int:
        if not self.batched:
            return 1
        sizes = {name: array.shape[0] for name, array in inputs.items()}
        if len(set(sizes.values())) > 1:
            told = ", ".join(f"`{name}` {size}" for name, size in sizes.items())
            raise BadRequest(f"all inputs are expected with one batch size, got {told}")
        return next(iter(sizes.values()), 1)


def _named(kind: str, name: str, known: Mapping[str, TensorSpec]) -> TensorSpec:
    if name in known:
        return known[name]
    # a name of a few kilobytes would keep the search for its nearest busy
    near = nearest(name, known) if len(name) < 200 else []
    hint = f"; did you mean {listed(near)}?" if near else ""
    raise BadRequest(f"the {kind}s {listed(known)} are expected, got {shown(name)}{hint}")


def _refuse_impossible(spec: TensorSpec, wanted: Wanted) -> None:
    """Raise BadRequest if an output has no such form."""
    datatype = name_of(spec.dtype)
    if wanted.classification:
        if datatype == BYTES or len(spec.shape) < 2:
            raise BadRequest(
                f"`classification` expects an output of numbers for each class, `{spec.name}` is"
                f" {datatype} of shape {list(spec.shape)}"
            )
    elif datatype in BINARY_ONLY and not wanted.binary:
        raise BadRequest(
            f"output `{spec.name}` is {datatype}, which JSON has no notation for: ask for it with"
            ' {"binary_data": true}'
        )


def _refuse_unknown_type(spec: TensorSpec) -> None:
    try:
        name_of(spec.dtype)
    except (KeyError, TypeError) as error:
        raise BundleError(
            f"`{spec.name}` has the type {spec.dtype}, which the protocol can't carry:"
            f" it knows {', '.join(NUMPY)}"
        ) from error


def _fits(expected: int, size: int) -> bool:
    return size >= 1 if expected < 0 else size == expected


def _type_of(array: np.ndarray) -> str:
    try:
        return name_of(array.dtype)
    except KeyError:
        return str(array.dtype)


def _refuse_non_finite(name: str, array: np.ndarray) -> None:
    if name_of(array.dtype) not in FLOATS:
        return
    with np.errstate(all="ignore"):
        # a sum is quicker than a look at each number, and finite only if all are
        if np.isfinite(array.sum()):
            return
    finite = np.isfinite(array)
    if finite.all():
        return
    at = int(np.argmin(finite.reshape(-1)))
    raise BadRequest(
        f"input `{name}` expects finite numbers, got {array.reshape(-1)[at]} at element {at}"
    )


def _described(specs: Iterable[TensorSpec]) -> list[dict[str, Any]]:
    return [
        {"name": spec.name, "datatype": name_of(spec.dtype), "shape": list(spec.shape)}
        for spec in specs
    ]
