"""What each weighted layer of a model costs, with all that an engine runs on its account.

An engine fuses, splits, converts and reorders; two engines, or two precisions, never run the same
rows. The layers with weights are the same in all of them. So everything that runs between two of
them is charged to the one before it, and what runs before the first is charged to the first: the
parts add up to all that the engine's own timer saw.

Example:
    session = OnnxRuntime(threads=1).build(path)
    for layer in time_by_layer(path, session, inputs):
        print(layer.name, layer.precision, layer.ms)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fettle.core.arrays import Arrays
from fettle.measure._matching import matched
from fettle.measure._traffic import Step, traffic_of
from fettle.measure.profile import Timed, joined
from fettle.measure.roofline import shapes_of
from fettle.runtimes import Session


@dataclass(frozen=True)
class LayerCost:
    """One weighted layer: ms for one batch, and the precision that its product is computed in.

    `names` holds everything that it is called in the file: its node, its outputs, and its module
    where the weight still bears that name. `precision` is empty where the engine doesn't tell.
    """

    name: str
    op: str
    names: tuple[str, ...]
    shape: tuple[int, ...]
    precision: str
    ms: float
    macs: int


def time_by_layer(
    model: str | Path, session: Session, inputs: Arrays, runs: int = 20
) -> list[LayerCost]:
    """Return the weighted layers in the graph's order, each with its time.

    Empty where the engine doesn't tell what its layers take, or runs none that can be matched.

    Args:
        model: the ONNX file that the session was built from, before any lowering.
        session: of any runtime.
        inputs: one batch, named as the session's inputs.
        runs: how many runs each median is taken over.

    Raises:
        ModelError: no readable ONNX, or a shape that can't be known.
        InputError: inputs that the session refuses.
    """
    traffic = traffic_of(model, shapes_of(model, inputs))
    timed = joined(session.layers(), session.layer_times(inputs, runs))
    nodes = matched([layer for layer, _ in timed], traffic)
    heavy = [step for step in traffic.steps if step.macs and not step.of_two]
    found = _charged(timed, nodes, heavy)
    if not any(ms for ms, _ in found.values()):
        return []
    called: dict[str, list[str]] = {}
    for alias, node in traffic.names.items():
        called.setdefault(node, []).append(alias)
    return [
        LayerCost(
            name=step.name,
            op=step.op,
            names=tuple(called.get(step.name, [step.name])),
            shape=tuple(step.shape),
            precision=found[step.name][1],
            ms=found[step.name][0],
            macs=step.macs,
        )
        for step in heavy
    ]


def _charged(
    timed: Sequence[Timed], nodes: Sequence[Sequence[str]], heavy: Sequence[Step]
) -> Mapping[str, tuple[float, str]]:
    """Return ms and precision of each weighted layer; what no layer owns goes to the one before."""
    known = {step.name: (0.0, "") for step in heavy}
    owners = [next((name for name in names if name in known), None) for names in nodes]
    current = next((owner for owner in owners if owner), None)
    for (layer, ms), owner in zip(timed, owners, strict=True):
        current = owner or current
        if current is not None:
            before, precision = known[current]
            known[current] = (before + (ms or 0.0), layer.precision if owner else precision)
    return known
