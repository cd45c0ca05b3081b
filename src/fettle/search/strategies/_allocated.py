"""Shapes by allocation: which widths and blocks go, by what each does and what each takes.

Each group of channels and each block is taken away alone, and the outputs compared; the kernels of
the quantized network are timed at every width. An integer program then gives, for a ladder of
times, the shape that does the least damage.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fettle.core.arrays import Arrays, repeat_to
from fettle.core.errors import FettleError
from fettle.core.recipe import Recipe
from fettle.core.shelf import TECHNIQUES
from fettle.search._layer_costs import DROPPED, Layer, Removable, shapes
from fettle.search._layer_names import layers_by_node
from fettle.search._overlay import NotDone
from fettle.search.allocation import Allocation, frontier
from fettle.search.latency_model import LatencyModel
from fettle.search.sensitivity import Sensitivity, TooLong

if TYPE_CHECKING:
    from fettle.compress.prune.allocated import Parts
    from fettle.core.plugin import Plugin
    from fettle.search._kernels import Kernel
    from fettle.search._trial import Trial
    from fettle.search.optimize import Search

NAME = "prune.allocated"
LADDER = (0.8, 0.65, 0.5, 0.4, 0.3, 0.22, 0.15)  # of the time of the quantized network
SHARES = (0.75, 0.5, 0.25)  # of a group's channels that are kept
SHARE_OF_TIME = 0.1  # of what is left of the search, for each kind of change


def allocated_shapes(search: Search) -> list[tuple[Plugin, ...]]:
    """Return allocated shapes as steps without training, the mildest first; none where it can't be.

    Raises:
        OutOfTime: no time is left.
    """
    pattern = fastest_int8(search)
    if pattern is None or not search.wish.allows(Recipe((TECHNIQUES.make(NAME),))):
        return []
    try:
        return _shapes(search, pattern)
    except NotDone as missing:  # in a dry run, which goes on with the others
        search.progress.say(f"shapes would be allocated too, once `{missing}` is done")
        return []
    except (TooLong, FettleError) as error:
        search.progress.say(f"shapes are not allocated: {error}")
        return []


def fastest_int8(search: Search) -> Trial | None:
    """Return the fastest trial in int8 that nothing was removed from, or None."""
    found = [
        trial
        for trial in search.trials
        if trial.precision == "int8" and "promise" in trial.row and len(trial.recipe.steps) == 1
    ]
    return min(found, key=lambda trial: float(trial.row["comparable_ms"]), default=None)


def times_of(search: Search, trial: Trial) -> LatencyModel:
    """Return the latency model of a trial's runtime and lowering."""
    lowering = [step for step in trial.lowering if "(" not in step]
    return LatencyModel(trial.runtime, one_batch(search), lowering)


def one_batch(search: Search) -> Arrays:
    """Return inputs as the study times them."""
    batch = search.setting.batch
    return repeat_to(search.task.example_inputs(batch), batch)


def _shapes(search: Search, pattern: Trial) -> list[tuple[Plugin, ...]]:
    parts = _parts(search)
    measured = Sensitivity(search.workshop, seconds=SHARE_OF_TIME * search.clock.left)
    removable = _removable(parts, measured)
    if not removable.parts():
        return []
    times = times_of(search, pattern)
    assert isinstance(pattern.model, Path)
    layers = _layers(parts, removable, times.kernels(pattern.model), pattern.model)
    problem = shapes(removable, layers, times)
    whole = problem.unchanged.ms
    found = frontier(problem, [share * whole for share in LADDER])
    search.workshop.store.journal.write(
        "allocation",
        parts=len(problem.parts),
        ms=whole,
        found=[[each.ms, each.damage] for each in found],
    )
    steps = (_step(each, removable) for each in found)
    return [(step,) for step in dict.fromkeys(steps)]


def _parts(search: Search) -> Parts:
    from fettle.compress._technique import example_tensors
    from fettle.compress.prune.allocated import Parts
    from fettle.train import device_of

    module = search.workshop.module()
    inputs = tuple(t.to(device_of(module)) for t in example_tensors(search.task))
    return Parts(module.eval(), inputs)


def _removable(parts: Parts, measured: Sensitivity) -> Removable:
    """Return what may go with the damage of each; of widths that are rounded to one, the first."""
    blocks = measured.of_blocks(parts)
    widths: dict[str, dict[int, float]] = {}
    for root, found in measured.of_widths(parts, SHARES).items():
        for share, damage in found.items():
            left = parts.width(root, share)
            if left < parts.width(root):
                widths.setdefault(root, {})[left] = damage
    at_first = {root: parts.width(root) for root in widths}
    return Removable(at_first, widths, blocks, _inside(parts, widths, blocks))


def _inside(
    parts: Parts, widths: Mapping[str, object], blocks: Mapping[str, object]
) -> dict[str, str]:
    """Return, by group, the block in which all of its layers lie."""
    reads, makes = parts.ends()
    found = {}
    for root in widths:
        touched = [path for ends in (reads, makes) for path, own in ends.items() if own == root]
        for block in blocks:
            if all(path.startswith(f"{block}.") for path in touched):
                found[root] = block
    return found


def _layers(parts: Parts, removable: Removable, kernels: list[Kernel], model: Path) -> list[Layer]:
    """Return the kernels with the parts that they depend on."""
    from fettle.compress.prune.allocated import running

    names = layers_by_node(model, running(parts.model, parts.inputs))
    reads, makes = parts.ends()
    found = []
    for kernel in kernels:
        path = next((names[node.name] for node in kernel.nodes if node.name in names), "")
        ends = (each.get(path, "") for each in (reads, makes))
        read, made = (root if root in removable.widths else "" for root in ends)
        block = next((b for b in removable.block_damage if path.startswith(f"{b}.")), "")
        found.append(Layer(kernel, read, made, block))
    return found


def _step(allocation: Allocation, removable: Removable) -> Plugin:
    """Return the step that an allocation asks for."""
    chosen = allocation.chosen
    gone = [block for block in removable.block_damage if chosen[block] == DROPPED]
    kept = {root: int(chosen[root]) / width for root, width in removable.widths.items()}
    widths = [
        f"{root}={share:.6g}"
        for root, share in kept.items()
        if share < 1 and removable.inside.get(root) not in gone
    ]
    return TECHNIQUES.make(NAME, widths=" ".join(widths), blocks=" ".join(gone), epochs=0)
