"""Mixed precision: INT8 but for the layers that lose most and gain least.

Where plain static quantization loses too much, each layer is quantized alone and the outputs are
compared; what it costs to leave each in float is timed. An integer program gives the
least damage for each of a ladder of times, and the ladder is searched in truth by halves: the
fastest rung that is likely to be proven wins. (HAWQ-V3, Yao et al. 2021, arXiv 2011.10680,
allocates bits so.)
"""

from __future__ import annotations

import glob
from collections.abc import Collection, Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fettle.core.errors import FettleError
from fettle.core.plugin import Plugin
from fettle.core.recipe import Recipe
from fettle.core.shelf import PASSES, TECHNIQUES
from fettle.search._layer_costs import in_float, precisions
from fettle.search._layer_names import layers_by_node
from fettle.search._left_in_float import LeftInFloat
from fettle.search._promise import LIKELY
from fettle.search.allocation import Allocation, fastest, frontier
from fettle.search.sensitivity import Sensitivity, TooLong
from fettle.search.strategies._allocated import fastest_int8, one_batch
from fettle.search.strategies._strategy import Strategy
from fettle.search.study import Candidate

if TYPE_CHECKING:
    import onnx_ir as ir

    from fettle.search._trial import Trial
    from fettle.search.optimize import Search
    from fettle.search.workshop import Made

GRAPH, MODULE = "graph.static_int8", "quantize.static"
RUNGS = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7)  # of the way from all int8 to all float, in ms
MOST = 3  # attempts
NEARLY = 1.2  # times the leader's time
FEW = 8  # examples; ranges don't change the time
SHARE_OF_TIME = 0.15  # of what is left of the search, for the sensitivities


class MixedPrecision(Strategy):
    """Leaves the most sensitive layers in float, as few ms of them as will do."""

    order: ClassVar[int] = 20
    title: ClassVar[str] = "mixed precision: INT8 but for the layers that lose most"

    def applies(self, search: Search) -> bool:
        """Say whether static INT8 is fast or nearly so, and not likely to be proven.

        Nearly: the layer that loses most may be one that is slow in int8, too.
        """
        static = fastest_int8(search)
        if static is None or static.recipe.steps[0].name() not in (GRAPH, MODULE):
            return False
        near = _ms(static) < _ms(search.leader) * NEARLY
        return near and float(static.row["promise"]) < LIKELY

    def explore(self, search: Search) -> None:
        """Attempt what the allocation says, by halves."""
        try:
            ladder = rungs(search)
        except (TooLong, FettleError) as error:
            search.progress.say(f"mixed precision is not tried: {error}")
            return
        low, high = 0, len(ladder)
        for _ in range(MOST):
            if low >= high:
                return
            middle = (low + high) // 2
            made = search.attempt(Candidate(Recipe((ladder[middle],))))
            likely = any(float(trial.row.get("promise", 0.0)) >= LIKELY for trial in made)
            low, high = (middle + 1, high) if likely else (low, middle)


def rungs(search: Search) -> list[Plugin]:
    """Return the steps to try, the slowest and safest first.

    Raises:
        TooLong: the sensitivities would take too much of the time that is left.
        OutOfTime: no time is left.
        FettleError: what it needs can't be made or timed.
    """
    floats = search.workshop.make(Recipe())
    measured = Sensitivity(search.workshop, seconds=SHARE_OF_TIME * search.clock.left)
    damage = measured.of_int8(floats.path, floats.key)
    ms, more_ms = _times(search, floats, list(damage))
    problem = precisions(damage, more_ms, ms)
    least = fastest(problem).ms
    most = max(_ms(search.base), (1 + RUNGS[0]) * least)
    found = frontier(problem, [least + part * (most - least) for part in RUNGS])
    search.workshop.store.journal.write(
        "allocation",
        parts=len(problem.parts),
        ms=least,
        found=[[each.ms, each.damage] for each in found],
    )
    return _steps(search, floats.path, found)


def _times(search: Search, floats: Made, layers: Sequence[str]) -> tuple[float, dict[str, float]]:
    """Return what the int8 model takes, and what more with each layer alone in float.

    Both are in ms that are comparable to the trials'.
    """
    static = fastest_int8(search)
    assert static is not None
    timed = LeftInFloat(
        _Masters(search, floats.path),
        static.runtime,
        [step for step in static.lowering if "(" not in step],
        one_batch(search),
        search.workshop.store,
        floats.key,
    )
    more: dict[str, float] = {}
    with closing(timed), search.progress.bar("how long layers take in float", len(layers)) as bar:
        for name in layers:
            more[name] = _ms(static) * (timed.times([name]) - 1)
            bar.step(name)
    return _ms(static), more


class _Masters:
    """Makes int8 masters whose ranges are rough, which doesn't change their time, when asked to."""

    def __init__(self, search: Search, floats: Path) -> None:
        self.search, self.floats = search, floats

    @cached_property
    def _variants(self) -> Any:
        import onnx_ir as ir

        quantize: Any = PASSES.make(GRAPH, samples=FEW)
        return quantize.within(self.search.workshop.context).variants(
            ir.load(self.floats), self.search.task
        )

    def leaving(self, nodes: Collection[str]) -> ir.Model:
        """Return the master with these nodes in float."""
        made: ir.Model = self._variants.leaving(nodes)
        return made


def _steps(search: Search, floats: Path, found: list[Allocation]) -> list[Plugin]:
    """Return each allocation as a step that leaves its layers in float."""
    left = [names for each in found if (names := in_float(each)) and len(names) < len(each.chosen)]
    if search.workshop.source.is_onnx:
        return [PASSES.make(GRAPH, leave=_listed(names)) for names in left]
    return _of_modules(search, floats, left)


def _of_modules(search: Search, floats: Path, left: list[list[str]]) -> list[Plugin]:
    """Return the steps by the modules' own names, where all of them are known."""
    from fettle.compress._technique import example_tensors
    from fettle.compress.prune.allocated import running

    layers = running(search.workshop.module().eval(), example_tensors(search.task))
    paths = layers_by_node(floats, layers)
    if all(name in paths for names in left for name in names):
        return [TECHNIQUES.make(MODULE, leave=_listed([paths[n] for n in names])) for names in left]
    return [PASSES.make(GRAPH, leave=_listed(names)) for names in left]


def _listed(names: list[str]) -> str:
    return ", ".join(glob.escape(name) for name in names)


def _ms(trial: Trial) -> float:
    return float(trial.row["comparable_ms"])
