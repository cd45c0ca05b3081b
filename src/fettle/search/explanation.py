"""Why the winner won: its time by layer, its losses by stage, and what was left and why.

The sentences are made of the numbers beside them, so that the record alone says everything again:
`fettle optimize --explain` and `fettle report` print it without running anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fettle.core.arrays import repeat_to
from fettle.core.errors import FettleError
from fettle.core.recipe import Recipe
from fettle.measure.by_layer import LayerCost, time_by_layer
from fettle.runtimes import match_inputs
from fettle.search._layer_change import LayerChange, changes
from fettle.search._rejected import Rejected, rejected
from fettle.search._stage_losses import StageLoss, stage_losses
from fettle.search._trial import Trial

if TYPE_CHECKING:
    from fettle.search.optimize import Search

_RUNS = 20
SHARES = ("top1", "agreement")  # metrics that are shares of examples
Rows = list[dict[str, Any]]


def explain(search: Search, winner: Trial) -> dict[str, Any]:
    """Return the explanation as a JSON object.

    `units` tells the unit of every number, by its name; `why` holds sentences; `layers`, `stages`
    and `rejected` rows; `unknown` says what could not be found out, by part. It never raises for
    what a part can't tell.
    """
    base, unknown = search.base, {}

    def part(name: str, rows: Callable[[], Any]) -> Any:
        try:
            return rows()
        except FettleError as error:
            unknown[name] = str(error)
            return []

    layers: list[LayerChange] = part("layers", lambda: _layers(search, base, winner))
    stages: list[StageLoss] = part("stages", lambda: stage_losses(search, base, winner))
    others: list[Rejected] = part("rejected", lambda: rejected(search, winner))
    return {
        "why": sentences(search, winner, layers, stages, others),
        "before": _side(base),
        "after": _side(winner),
        "layers": [row.to_json() for row in layers],
        "stages": [row.to_json() for row in stages],
        "rejected": [row.to_json() for row in others],
        "unknown": unknown,
        "units": units(search),
    }


def sentences(
    search: Search,
    winner: Trial,
    layers: Sequence[LayerChange],
    stages: Sequence[StageLoss],
    others: Sequence[Rejected],
) -> list[str]:
    """Return what the numbers say, in a few sentences."""
    before, after = (float(t.row["comparable_ms"]) for t in (search.base, winner))
    said = [] if winner is not search.base else [_NOTHING_BETTER]
    said += [
        f"{winner.recipe} takes {after:.3g} ms for a batch of {search.setting.batch} and the"
        f" untouched model, where it is fastest ({search.base.runtime}), {before:.3g} ms:"
        f" {before / after:.2f} times as fast."
    ]
    said += _said_of_layers(layers)
    if stages:
        said.append(_said_of_stages(search.task.metric, stages))
    counts = Counter(_kind(other.why) for other in others)
    if counts:
        told = ", ".join(f"{n} {_MEANING.get(why, why)}" for why, n in counts.most_common())
        said.append(f"{len(others)} others were tried and left: {told}.")
    return said


_NOTHING_BETTER = "Nothing that was tried is faster than the untouched model and likely proven."
_MEANING = {
    "slower": "no faster",
    "unlikely": "faster but not likely to be proven",
    "failed": "not proven on test",
    "rung 0": "timed untrained and never trained",
    "rung": "given up while they were trained",
    "refused": "that could not be made or run",
    "reference": "for reference",
    "others": "not made by what was asked for",
}


def _kind(why: str) -> str:
    """Return the word for a reason: `rung 0` was never trained, all other rungs were."""
    return why if why == "rung 0" else why.partition(" ")[0]


def _said_of_stages(metric: str, stages: Sequence[StageLoss]) -> str:
    """Say what was lost or gained in all, and which step lost most, in the metric's unit."""
    worst = max(stages, key=lambda stage: stage.lost)
    on = f"on the first {worst.n:,} examples of select"
    said = f"Of {metric} it {_lost(metric, stages[-1].drop)} {on}"
    if worst.lost <= 0:
        return f"{said}; no step lost any."
    return f"{said}; `{worst.stage}` lost most: {_amount(metric, worst.lost)}."


def _lost(metric: str, drop: float) -> str:
    return f"{'gained' if drop < 0 else 'lost'} {_amount(metric, abs(drop))}"


def _amount(metric: str, amount: float) -> str:
    """Return a difference of scores: shares of examples in percentage points, others as numbers."""
    return f"{100 * amount:.2f} pp" if metric in SHARES else f"{amount:.4f}"


def units(search: Search) -> dict[str, str]:
    """Return the unit of every number in an explanation, by the name that it bears there."""
    score = "share of examples, 0 to 1" if search.task.metric in SHARES else search.task.metric
    return {
        **dict.fromkeys(
            ("ms", "before_ms", "after_ms"), f"ms for a batch of {search.setting.batch}"
        ),
        **dict.fromkeys(("before_macs", "after_macs"), "multiply-accumulates"),
        **dict.fromkeys(("score", "lost", "drop"), score),
        "promise": "chance of a pass, 0 to 1",
        "n": "examples",
    }


def _said_of_layers(layers: Sequence[LayerChange]) -> list[str]:
    """Say how much of the time went with removed layers, and how much in those that stayed."""
    total = sum(layer.before_ms or 0.0 for layer in layers)
    gone = [layer for layer in layers if layer.after_ms is None]
    kept = [layer for layer in layers if layer.after_ms is not None and layer.before_ms]
    after = sum(layer.after_ms or 0.0 for layer in kept)
    if not total or not after:
        return []
    removed, stayed = (sum(row.before_ms or 0.0 for row in rows) for rows in (gone, kept))
    said = []
    if gone:
        said.append(
            f"{len(gone)} of {len(layers)} layers are gone, and with them {removed / total:.0%} of"
            " the time by layer."
        )
    narrower = sum(layer.after_macs < layer.before_macs for layer in kept)
    thin = f", {narrower} of them narrower" if narrower else ""
    types = Counter(layer.after_precision for layer in kept if layer.after_precision)
    run = f", {types.most_common(1)[0][1]} in {types.most_common(1)[0][0]}" if types else ""
    said.append(
        f"The {len(kept)} that stayed{thin}{run} take {after:.3g} ms in place of {stayed:.3g} ms by"
        f" the engines' own timers: {stayed / after:.2f} times as fast."
    )
    return said


def _side(trial: Trial) -> dict[str, Any]:
    return {
        "recipe": str(trial.recipe),
        "runtime": str(trial.runtime),
        "precision": trial.precision,
        "ms": float(trial.row["comparable_ms"]),
    }


def _layers(search: Search, base: Trial, winner: Trial) -> list[LayerChange]:
    """Time both by layer; the untouched one where it runs as ONNX, for a module has no file."""
    before, after = (_costs(search, trial) for trial in (_as_file(search, base), winner))
    return changes(before, after, _modules(search, winner.recipe)) if before and after else []


def _as_file(search: Search, base: Trial) -> Trial:
    if isinstance(base.model, Path):
        return base
    plain = [t for t in search.trials if t.is_fp32 and isinstance(t.model, Path) and t.session]
    return min(plain, key=search.objective.cost, default=base)


def _costs(search: Search, trial: Trial) -> list[LayerCost]:
    search.measuring.open(trial)
    if trial.session is None or not isinstance(trial.model, Path):
        return []
    batch = search.setting.batch
    inputs = repeat_to(search.task.example_inputs(batch), batch)
    return time_by_layer(
        trial.model, trial.session, match_inputs(trial.session.inputs, inputs), _RUNS
    )


def _modules(search: Search, recipe: Recipe) -> dict[str, bool]:
    """Return whether each module of the source is left after a recipe's techniques."""
    if search.workshop.source.is_onnx:
        return {}
    steps = [step for step in recipe.techniques if not getattr(step, "final", False)]
    whole, left = search.workshop.module(), search.workshop.module(steps)
    kinds = {path: type(module) for path, module in left.named_modules()}
    return {path: kinds.get(path) is type(module) for path, module in whole.named_modules() if path}
