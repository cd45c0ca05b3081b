"""Problems of allocation: from what layers take, and how much they matter, to parts and terms.

Whoever tells times is a `Times`; the latency model is one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from fettle.core.errors import FettleError
from fettle.search._kernel_widths import narrowed
from fettle.search.allocation import Allocation, Cost, Problem, Term

if TYPE_CHECKING:
    from fettle.search._kernels import Kernel

INT8, FLOAT = "int8", "float"
KEPT, DROPPED = "kept", "dropped"


class Times(Protocol):
    """Tells what the kernels of ONNX files take."""

    def kernels(self, path: Path) -> list[Kernel]:
        """Return the kernels of a model, in order."""

    def ms(self, kernels: Sequence[Kernel]) -> list[float]:
        """Return what each kernel takes, in ms."""


def precisions(damage: Mapping[str, float], more_ms: Mapping[str, float], ms: float) -> Problem:
    """Return the problem of which layers stay in float.

    Args:
        damage: of each layer in int8, by name.
        more_ms: what the model takes more with that layer alone in float; infinite where it can't
            be left so.
        ms: what it takes in int8.
    """
    terms = [
        Term((name,), {(INT8,): Cost(each), (FLOAT,): _left(more_ms[name])})
        for name, each in damage.items()
    ]
    whole = Term((), {(): Cost(0.0, ms)})
    return Problem(dict.fromkeys(damage, (INT8, FLOAT)), (whole, *terms))


def _left(more_ms: float) -> Cost:
    return Cost(0.0, more_ms) if math.isfinite(more_ms) else Cost(math.inf)


def in_float(allocation: Allocation) -> list[str]:
    """Return the layers that an allocation leaves in float."""
    return [name for name, option in allocation.chosen.items() if option == FLOAT]


@dataclass(frozen=True)
class Layer:
    """A kernel, the groups of channels that it reads and makes, and the block that it is part of.

    A name is empty where nothing can be changed.
    """

    kernel: Kernel
    reads: str = ""
    makes: str = ""
    block: str = ""

    @property
    def parts(self) -> tuple[str, ...]:
        """What its time depends on, each once."""
        return tuple(dict.fromkeys(name for name in (self.reads, self.makes, self.block) if name))


@dataclass(frozen=True)
class Removable:
    """What can be removed of a network.

    Attributes:
        widths: by group, its width at first.
        width_damage: by group and width left, which are less than at first.
        block_damage: by block.
        inside: by group, the block that holds all of its layers.
    """

    widths: Mapping[str, int]
    width_damage: Mapping[str, Mapping[int, float]]
    block_damage: Mapping[str, float]
    inside: Mapping[str, str] = field(default_factory=dict)

    def parts(self) -> dict[str, tuple[str, ...]]:
        """Return the options: widths left, widest first, and blocks kept or dropped."""
        found = {
            root: (str(self.widths[root]), *(str(w) for w in sorted(damage, reverse=True)))
            for root, damage in self.width_damage.items()
        }
        return found | dict.fromkeys(self.block_damage, (KEPT, DROPPED))

    def terms(self) -> Iterator[Term]:
        """Yield what each change does; of a block that is dropped, its own widths do nothing."""
        for block, damage in self.block_damage.items():
            yield Term((block,), {(KEPT,): Cost(), (DROPPED,): Cost(damage)})
        for root, damages in self.width_damage.items():
            costs = {str(self.widths[root]): Cost()}
            costs |= {str(width): Cost(damage) for width, damage in damages.items()}
            holder = self.inside.get(root, "")
            if holder in self.block_damage:
                both: dict[tuple[str, ...], Cost] = {}
                both |= {(width, KEPT): cost for width, cost in costs.items()}
                both |= {(width, DROPPED): Cost() for width in costs}
                yield Term((root, holder), both)
            else:
                yield Term((root,), {(width,): cost for width, cost in costs.items()})


def shapes(removable: Removable, layers: Sequence[Layer], times: Times) -> Problem:
    """Return the problem of which widths and blocks go; all kernels are timed at once."""
    parts = removable.parts()
    wanted = [
        (layer, choice)
        for layer in layers
        for choice in itertools.product(*(parts[part] for part in layer.parts))
    ]
    kernels = [_kernel(layer, choice, removable.widths) for layer, choice in wanted]
    own = [kernel for kernel, _ in kernels if kernel is not None]
    ms = iter(times.ms(own))
    costs: dict[int, dict[tuple[str, ...], Cost]] = {}
    for (layer, choice), (kernel, factor) in zip(wanted, kernels, strict=True):
        cost = Cost(ms=next(ms) * factor) if kernel is not None else Cost()
        costs.setdefault(id(layer), {})[choice] = cost
    timed = (Term(layer.parts, costs[id(layer)]) for layer in layers)
    return Problem(parts, (*removable.terms(), *timed))


def _kernel(
    layer: Layer, choice: tuple[str, ...], widths: Mapping[str, int]
) -> tuple[Kernel | None, float]:
    """Return the kernel that is left of a layer, and by what its time is to be multiplied.

    None when its block is dropped. One that can't be narrowed (a grouped convolution) is taken to
    shrink with its multiply-adds.
    """
    chosen = dict(zip(layer.parts, choice, strict=True))
    if chosen.get(layer.block) == DROPPED:
        return None, 0.0
    reads, makes = (
        int(chosen[root]) / widths[root] if root else 1.0 for root in (layer.reads, layer.makes)
    )
    if reads == makes == 1:
        return layer.kernel, 1.0
    try:
        return narrowed(layer.kernel, outputs=makes, inputs=reads), 1.0
    except FettleError:
        return layer.kernel, reads * makes
