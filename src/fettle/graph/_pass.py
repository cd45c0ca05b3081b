"""The seam of a graph pass: ONNX in, ONNX out."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import onnx_ir as ir

from fettle.core.context import Context
from fettle.core.machine import Machine
from fettle.core.plugin import Plugin
from fettle.graph._constants import keep_names_apart
from fettle.graph._soundness import refuse_unsound

if TYPE_CHECKING:
    from fettle.tasks import Task


@dataclass(frozen=True, kw_only=True)
class GraphPass(Plugin):
    """A rewrite of an ONNX graph; call it, implement `apply`.

    A call works on the model in place and returns it; `requires` refuses a model that the pass
    can't work on, and what comes out must have the same interface.

    A pass that rewrites the master for one engine names it in `lowers_for`, and says in `suits`
    which processors it is for. It is applied only when a session is built.

    `context` says where the work happens (seed, progress); it is no knob, so it is neither printed
    nor hashed.
    """

    lowers_for: ClassVar[str] = ""

    context: Context = field(default_factory=Context, repr=False, compare=False)

    @classmethod
    def suits(cls, machine: Machine) -> bool:
        """Say whether the rewrite can help on this machine."""
        del machine
        return True

    def __call__(self, model: ir.Model, task: Task | None = None) -> ir.Model:
        """Check, rewrite, check.

        Raises:
            ModelError: the pass can't work on this model, or a constant in it is NaN, or a weight
                infinite.
        """
        if not self.lowers_for:  # those are made of a master that was checked
            refuse_unsound(model, self.name())
        self.requires(model)
        before = _interface(model)
        result = self.apply(model, task)
        keep_names_apart(result)
        if _interface(result) != before:
            raise AssertionError(f"{self.name()} changed the model's inputs or outputs")
        return result

    def within(self, context: Context) -> GraphPass:
        """Return the same pass in other circumstances."""
        return self.but(context=context)

    def requires(self, model: ir.Model) -> None:
        """Raise ModelError when the pass can't work on `model`."""

    @abstractmethod
    def apply(self, model: ir.Model, task: Task | None) -> ir.Model:
        """Return the rewritten model."""


def _interface(model: ir.Model) -> list[tuple[str | None, ir.DataType | None]]:
    graph = model.graph
    inputs = (value for value in graph.inputs if not value.is_initializer())  # old files list both
    return [(value.name, value.dtype) for value in (*inputs, *graph.outputs)]
