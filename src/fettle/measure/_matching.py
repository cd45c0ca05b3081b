"""Which nodes of the ONNX graph each layer of a running engine stands for.

Engines call a layer after a node of the graph, or after what it makes, and append to that
(`node_Conv_1_nchwc`, `relu_nchwc`, `node_MatMul_40/DequantizationMultiply`); OpenVINO also lists
what it fused; torch's modules are found by the name of their weight. What multiplies and bears a
name of the engine's own making (`Multiply_8042`) is matched by its place between its neighbours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from fettle.measure._traffic import Step, Traffic
from fettle.runtimes import LayerPrecision

_MULTIPLIES = re.compile(
    r"Conv(?!ert)|Gemm|MatMul|FullyConnected|Deconvolution|Linear(?!$)|^Linear$|LSTM|GRU|RNN|"
    r"Attention|addmm|^mm$|^bmm$"
)
_NORM = re.compile(r"LayerNorm|MVN|RMS")
_NOT = re.compile(r"^(De)?Quantize|^Dynamic\w*Linear$|QuantizeLinear")


def multiplies(op: str) -> bool:
    """Say whether an engine's operator is a convolution, a product or a recurrent layer."""
    return bool(_MULTIPLIES.search(op)) and not _NOT.search(op)


def is_norm(op: str) -> bool:
    """Say whether an operator normalizes a layer's rows."""
    return bool(_NORM.search(op))


def matched(layers: Sequence[LayerPrecision], traffic: Traffic) -> list[tuple[str, ...]]:
    """Return for each layer the nodes that it stands for, in the graph's order; may be none.

    Each step of the graph is claimed at most once: by a layer that multiplies where it does.
    """
    order = {name: place for place, name in enumerate(traffic.step_of)}
    claims = [_named(layer, traffic.names) for layer in layers]
    heavy = {step.name for step in traffic.steps if step.macs}
    for index, layer in enumerate(layers):
        if not multiplies(layer.op) and not len(layer.origins) > 1:
            claims[index] -= heavy  # a reorder, a constant, a bias called after its product
    weighted = [s for s in traffic.steps if s.macs and not s.of_two]
    _by_place(layers, claims, multiplies, weighted)
    norms = [s for s in traffic.steps if is_norm(s.op)]
    _by_place(layers, claims, is_norm, norms)
    _absorb(layers, claims, traffic.steps)
    return [tuple(sorted(names & order.keys(), key=order.__getitem__)) for names in claims]


def _named(layer: LayerPrecision, names: dict[str, str]) -> set[str]:
    found = (longest(name, names) for name in (layer.name, *layer.origins))
    return {name for name in found if name is not None}


def longest(name: str, names: Mapping[str, str]) -> str | None:
    """Return the node whose name is the longest that `name` begins with.

    What is appended begins with no digit: that would be another node's name.
    """
    for end in range(len(name), 0, -1):
        if name[:end] in names and not name[end : end + 1].isdigit():
            return names[name[:end]]
    return None


def _by_place(
    layers: Sequence[LayerPrecision],
    claims: list[set[str]],
    is_kind: Callable[[str], bool],
    steps: Sequence[Step],
) -> None:
    """Give each layer of a kind that claims no step of it the next one that nobody claims.

    Of its shape, if any is: engines run independent branches in an order of their own.
    """
    taken = {name for names in claims for name in names}
    place = {step.name: index for index, step in enumerate(steps)}
    last = -1
    for layer, names in zip(layers, claims, strict=True):
        own = [place[name] for name in names if name in place]
        if own:
            last = max(own)
        elif is_kind(layer.op):
            free = [step for step in steps if step.name not in taken]
            alike = [step for step in free if _fits(layer.shape, step.shape)]
            later = [step for step in alike or free if place[step.name] > last]
            if later or alike:
                found = (later or alike)[0].name
                names.add(found)
                taken.add(found)
                last = place[found]


def _fits(shape: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Say whether two shapes agree in all but the batch; -1 is free."""
    if not shape or len(shape) != len(other):
        return False
    return all(-1 in (a, b) or a == b for a, b in zip(shape[1:], other[1:], strict=True))


def _absorb(
    layers: Sequence[LayerPrecision], claims: Sequence[set[str]], steps: Sequence[Step]
) -> None:
    """Give a step that nobody claims to the fused layer that claims what follows it."""
    taken = {name for names in claims for name in names}
    for step in steps:
        if step.name in taken:
            continue
        for layer, names in zip(layers, claims, strict=True):
            if len(layer.origins) > 1 and names & set(step.nodes):
                names.add(step.name)
                break
