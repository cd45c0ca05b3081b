"""From the batches that people have to the arguments of a model, checked on the way."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fettle.core.errors import DataError, InputError


@dataclass(frozen=True)
class Arguments:
    """What a model is called with, by position and by name."""

    inputs: tuple[Tensor, ...] = ()
    named: dict[str, Tensor] = field(default_factory=dict)

    @property
    def shapes(self) -> dict[str, list[int]]:
        """Return each argument's shape without its batch."""
        every = {**{str(i): t for i, t in enumerate(self.inputs)}, **self.named}
        return {name: list(tensor.shape[1:]) for name, tensor in every.items()}


def arguments_of(model: nn.Module, batches: Iterable[Any]) -> Iterator[Arguments]:
    """Yield the arguments of each batch; a target that comes with them is left out.

    Raises:
        InputError: `batches` is no iterable of batches.
        DataError: there are none, or one that the model can't take.
    """
    if isinstance(batches, Tensor | Mapping) or not isinstance(batches, Iterable):
        raise InputError(
            "`batches` expects an iterable of batches, such as a DataLoader or a list, but it is a"
            f" {type(batches).__name__}; put a single batch into a list"
        )
    first = None
    for number, batch in enumerate(batches, start=1):
        arguments = _arguments(model, batch, number)
        if first is None:
            first = arguments
            _try(model, first)
        _check(arguments, first, number)
        yield arguments
    if first is None:
        raise DataError("`batches` holds no batch, and calibration needs at least one")


def _arguments(model: nn.Module, batch: Any, number: int) -> Arguments:
    most, names = _accepted(model)
    if isinstance(batch, list | tuple) and batch:
        with_target = len(batch) > most or not isinstance(batch[0], Tensor)
        batch = batch[0] if with_target and len(batch) == 2 else tuple(batch)[:most]
    if isinstance(batch, Mapping):
        named = {k: v for k, v in batch.items() if names is None or k in names}
        arguments = Arguments(named=named)
    else:
        arguments = Arguments(tuple(batch) if isinstance(batch, list | tuple) else (batch,))
    tensors = [*arguments.inputs, *arguments.named.values()]
    if not tensors or not all(isinstance(t, Tensor) and t.dim() and len(t) for t in tensors):
        raise DataError(
            f"batch {number} was expected to be a tensor, a tuple or dict of tensors, or a pair"
            f" (inputs, target), batch first and not empty; it is {_described(batch)}"
        )
    return arguments


def _accepted(model: nn.Module) -> tuple[int, set[str] | None]:
    """Return how many arguments a model takes by position at most, and the names it takes."""
    parameters = inspect.signature(model.forward).parameters.values()
    kinds = {p.kind for p in parameters}
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    most = 1_000 if inspect.Parameter.VAR_POSITIONAL in kinds else len(positional)
    every = inspect.Parameter.VAR_KEYWORD in kinds
    return most, None if every else {p.name for p in parameters}


@torch.no_grad()
def _try(model: nn.Module, first: Arguments) -> None:
    """Run the float model once, in evaluation mode, and leave its modes as they were."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()(*first.inputs, **first.named)
    except Exception as error:  # a model's own code raises what it likes
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"the model can't take the first batch, with shapes {first.shapes} after the batch:"
            f" {line}"
        ) from error
    finally:
        for module, training in modes:
            module.training = training


def _check(arguments: Arguments, first: Arguments, number: int) -> None:
    if arguments.shapes != first.shapes:
        raise DataError(
            f"batch {number} has shapes {arguments.shapes} after the batch, and the first has"
            f" {first.shapes}; calibration expects the same of all"
        )
    if not all(torch.isfinite(t).all() for t in (*arguments.inputs, *arguments.named.values())):
        raise DataError(
            f"batch {number} holds NaN or infinity, from which no range can be taken; clean the"
            " data"
        )


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)}"
    return f"a {type(value).__name__}"
