"""Whether one model can answer what another is asked."""

from __future__ import annotations

from fettle.core.arrays import TensorSpec
from fettle.serve.model import Model
from fettle.serve.repository import Served


class Fitting:
    """Says why a second model can't stand in for a first; looked at once for each pair."""

    def __init__(self) -> None:
        self._pair: tuple[Served, Served] | None = None
        self._trouble = ""

    def trouble(self, first: Served, second: Served) -> str:
        """Return why `second` can't take the requests of `first`; '' where it can."""
        pair = self._pair
        if pair is None or pair[0] is not first or pair[1] is not second:
            self._trouble = misfit(first.model, second.model)
            self._pair = (first, second)
        return self._trouble


def misfit(first: Model, second: Model) -> str:
    """Return why `second` can't take the requests of `first`; '' where it can."""
    a, b = first.signature, second.signature
    for kind, one, other in (("inputs", a.inputs, b.inputs), ("outputs", a.outputs, b.outputs)):
        if _told(one) != _told(other):
            return f"the {kind} {_told(one)} are expected as in {first.path}, got {_told(other)}"
    if a.labels != b.labels and a.labels and b.labels:
        return f"the classes of {first.path} are expected, in their order, got others"
    if b.max_batch is not None and (a.max_batch is None or b.max_batch < a.max_batch):
        return f"batches of {a.max_batch or 'any'} rows are expected, {b.max_batch} are proven"
    return ""


def _told(specs: tuple[TensorSpec, ...]) -> list[str]:
    return [f"{spec.name} {spec.dtype} {list(spec.shape)}" for spec in specs]
