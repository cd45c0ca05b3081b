"""An inference request and its answer, whichever way they came and go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fettle.core.arrays import Arrays

Parameter = str | int | float | bool


@dataclass(frozen=True)
class Wanted:
    """An output that is asked for.

    Attributes:
        name: the output's.
        binary: whether it goes as bytes after the JSON; gRPC always sends bytes.
        classification: how many of the highest classes are wanted instead of the numbers; 0 asks
            for the numbers.
    """

    name: str
    binary: bool = False
    classification: int = 0


@dataclass(frozen=True)
class InferRequest:
    """What a caller asks for; `inputs` are checked against the model's signature.

    Attributes:
        id: the caller's own, "" where it gave none.
        inputs: arrays by name, batch first; they may be views of the request's bytes.
        outputs: what is wanted, in this order; empty asks for all outputs.
        parameters: the request's own, kept as they came.
        binary_default: whether outputs that aren't named go as bytes.
    """

    id: str
    inputs: Arrays
    outputs: tuple[Wanted, ...] = ()
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    binary_default: bool = False

    def wanted(self, outputs: Arrays) -> tuple[Wanted, ...]:
        """Return what goes back of the model's `outputs`, in order."""
        return self.outputs or tuple(Wanted(name, self.binary_default) for name in outputs)


@dataclass(frozen=True)
class InferResponse:
    """What a model answered.

    Attributes:
        model, version: which one did.
        id: the request's.
        outputs: arrays by name, batch first.
        parameters: go with the answer.
        labels: names of the model's classes, if it has any.
        wanted: what of the outputs goes back, and how; empty sends all as JSON.
    """

    model: str
    version: str
    id: str
    outputs: Arrays
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    wanted: tuple[Wanted, ...] = ()
