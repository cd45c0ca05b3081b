"""The worker's side of a measurement: opens the trials' sessions here, and asks them."""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from fettle.core.errors import CheckFailed, InputError
from fettle.core.progress import Reporter
from fettle.core.recipe import Recipe
from fettle.runtimes import Session
from fettle.search._measuring import Measuring
from fettle.search._trial import Trial
from fettle.search.executors._job import ARRAYS, Done, Order, Parcel, pack
from fettle.search.executors._transport import arrays_bytes, arrays_of, runtime_of
from fettle.search.workshop import Workshop

_MOST_OPEN = 16  # sessions; a study times a handful together
_OPEN: OrderedDict[str, Session] = OrderedDict()


def measured(shop: Workshop, order: Order, files: Parcel, progress: Reporter) -> Done:
    """Do a measurement that was asked for.

    Raises:
        InputError: this is not the machine that the study measures on.
        FettleError: what the engine refused.
    """
    asked = order["with"]
    measuring = Measuring(shop.store, shop.task, asked["batch"], asked["seconds"], progress)
    _check_target(measuring, asked["target"])
    made = order["do"] != "supports"  # which asks about the engine alone
    trials = [_trial(shop, told, made) for told in asked["trials"]]
    if order["do"] in _OPENED:
        for trial in trials:
            trial.session = _session(measuring, trial)
    return MEASURES[order["do"]](_Asked(measuring, trials, asked, files))


@dataclass(frozen=True)
class _Asked:
    """What is asked of one or more trials."""

    measuring: Measuring
    trials: list[Trial]
    values: Order
    files: Parcel

    @property
    def trial(self) -> Trial:
        """The only trial, or the first."""
        return self.trials[0]

    @property
    def session(self) -> Session:
        """The trial's session."""
        assert self.trial.session is not None
        return self.trial.session


def _supports(asked: _Asked) -> Done:
    return Done({}, asked.measuring.supports(asked.trial))


def _open(asked: _Asked) -> Done:
    session = asked.session
    specs = {"inputs": session.inputs, "outputs": session.outputs}
    told: Order = {name: [spec.to_json() for spec in given] for name, given in specs.items()}
    return Done({}, {**told, "callers": session.callers})


def _choose(asked: _Asked) -> Done:
    return Done({}, asked.measuring.choose(asked.trial))


def _score(asked: _Asked) -> Done:
    with tempfile.TemporaryDirectory() as name:
        asked.measuring.score(asked.trial, asked.values["split"], Path(name))
        return Done(pack(Path(name)))


def _time(asked: _Asked) -> Done:
    return Done({}, asked.measuring.time(asked.trials))


def _probe(asked: _Asked) -> Done:
    return Done({}, asked.measuring.probe(asked.trial))


def _run(asked: _Asked) -> Done:
    outputs = asked.session.run(arrays_of(asked.files[ARRAYS]))
    return Done({ARRAYS: arrays_bytes(outputs)})


def _layers(asked: _Asked) -> Done:
    return Done({}, [list(astuple(layer)) for layer in asked.session.layers()])


def _layer_times(asked: _Asked) -> Done:
    inputs = arrays_of(asked.files[ARRAYS])
    found = asked.session.layer_times(inputs, asked.values["runs"])
    return Done({}, [list(astuple(layer)) for layer in found])


MEASURES: dict[str, Callable[[_Asked], Done]] = {
    "supports": _supports,
    "open": _open,
    "choose": _choose,
    "score": _score,
    "time": _time,
    "probe": _probe,
    "run": _run,
    "layers": _layers,
    "layer_times": _layer_times,
}
_OPENED = ("open", "score", "time", "run", "layers", "layer_times")


def _trial(shop: Workshop, told: Order, made: bool) -> Trial:
    """Return a trial as the study has it, its artifact found in the store.

    Raises:
        CheckFailed: what is found here has another key.
    """
    recipe = Recipe.parse(told["recipe"])
    model: Any = Path()
    if made and told["module"]:
        model, key = shop.module(), shop.key()
    elif made:
        artifact = shop.make(recipe)
        model, key = artifact.path, artifact.key
    if made and key != told["key"]:
        raise CheckFailed(f"this node finds {key} for `{recipe}`, and the study {told['key']}")
    return Trial(told["name"], recipe, runtime_of(told["runtime"]), told["key"], model,
                 told["precision"], lowering=tuple(told["lowering"]))  # fmt: skip


def _session(measuring: Measuring, trial: Trial) -> Session:
    """Return the trial's session, open already where it was asked for before."""
    name = f"{measuring.store.root} {trial.label} {trial.lowering}"
    if name not in _OPEN:
        _OPEN[name] = measuring.build(trial)
    _OPEN.move_to_end(name)
    while len(_OPEN) > _MOST_OPEN:
        _OPEN.popitem(last=False)[1].close()
    return _OPEN[name]


def _check_target(measuring: Measuring, expected: list[Any]) -> None:
    """Refuse to measure on another kind of machine than the study's target.

    Raises:
        InputError: the processors, or the versions installed, differ.
    """
    machine, versions = expected
    here = measuring.machine.to_json()
    differing = [name for name in here if here[name] != machine[name]]
    packages = [n for n in measuring.versions if measuring.versions[n] != versions.get(n)]
    if differing or packages:
        raise InputError(
            f"this node differs from the target in {', '.join([*differing, *packages])}: mark only"
            " machines that are alike as the target"
        )
