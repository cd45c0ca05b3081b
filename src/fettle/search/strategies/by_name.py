"""What `--only` names, each by itself, from mild to strong.

The other strategies combine: they time shapes quantized, and train them with distillation. With
`--only prune` nothing of that is allowed, and yet something is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from fettle.core.knobs import Range
from fettle.core.recipe import Recipe
from fettle.core.shelf import PASSES, TECHNIQUES
from fettle.search.strategies._strategy import Strategy
from fettle.search.study import Candidate

if TYPE_CHECKING:
    from fettle.core.plugin import Plugin
    from fettle.search.optimize import Search

STRENGTHS = (0.25, 0.5, 0.75)
_STRENGTH, _MASK = "ratio", "sparsity"
_LOWERING = f"{PASSES.prefix}lower_"  # is for sessions, which apply it by themselves
_HOPELESS = 0.2  # less likely to be proven than this: stronger ones are not tried


class ByName(Strategy):
    """Every allowed plug-in alone, the milder first; the stronger while there is hope."""

    order: ClassVar[int] = 20
    title: ClassVar[str] = "what was asked for, each by itself"

    def applies(self, search: Search) -> bool:
        """Say whether anything was asked for by name."""
        return bool(search.wish.only)

    def explore(self, search: Search) -> None:
        """Attempt each at rising strength."""
        climbing = [ladder(plugin) for plugin in plugins(search)]
        while climbing:
            climbing = [
                steps[1:] for steps in climbing if _may_rise(search, steps[0]) and steps[1:]
            ]


def plugins(search: Search) -> list[type[Plugin]]:
    """Return what may be tried alone, what needs no training first.

    Masks of zeros, which no engine here is faster with, are tried only where one is named itself.
    """
    names = [name for name in PASSES.names() if not name.startswith(_LOWERING)]
    passes = [PASSES.load(name) for name in names if search.wish.allows_name(name)]
    if search.workshop.source.is_onnx:
        return passes
    techniques = [TECHNIQUES.load(n) for n in TECHNIQUES.names() if search.wish.allows_name(n)]
    return [
        *passes,
        *(t for t in techniques if t.name() in search.wish.only or not _knob(t, _MASK)),
    ]


def ladder(plugin: type[Plugin]) -> list[Plugin]:
    """Return the plug-in at rising strength; once as it comes, when it has none."""
    strength = _knob(plugin, _STRENGTH) or _knob(plugin, _MASK)
    if strength is None:
        return [plugin()]
    bounds = strength.bounds
    most = bounds.high if isinstance(bounds, Range) else 1.0
    return [plugin(**{strength.name: value}) for value in STRENGTHS if value <= most]


def _knob(plugin: type[Plugin], name: str) -> Any:
    return next((knob for knob in plugin.knobs() if knob.name == name), None)


def _may_rise(search: Search, step: Plugin) -> bool:
    """Attempt a step alone; say whether a stronger one could be proven, too."""
    made = search.attempt(Candidate(Recipe((step,))))
    return any(trial.row.get("promise", 0.0) > _HOPELESS for trial in made)
