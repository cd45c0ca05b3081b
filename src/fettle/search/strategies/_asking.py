"""Optuna's ask and tell behind the journal: what was told once is told again."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fettle.core.recipe import Recipe
from fettle.search.strategies._space import Choices, Space

if TYPE_CHECKING:
    from fettle.search.optimize import Search

EVENT = "outer"
_STARTUP = 8  # points by chance before the estimator is used
_SHORT = "short"


class Asking:
    """Asks for points of a space; the same seed, told the same, asks the same.

    On a resumed search the journal's numbers are told in place of what is measured anew, as long
    as the points are the same.
    """

    def __init__(self, search: Search, space: Space, starts: Sequence[Recipe]) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.space, self.journal = space, search.workshop.store.journal
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(
                seed=search.workshop.context.seed,
                n_startup_trials=_STARTUP,
                multivariate=True,
                group=True,
                constant_liar=False,
            )
        self.study = optuna.create_study(sampler=sampler)
        for recipe in starts:
            self.study.enqueue_trial(space.params(recipe), skip_if_exists=True)
        self._past: dict[int, dict[str, Any]] = {}
        for event in self.journal.read():
            if event.get("event") == EVENT:
                self._past.setdefault(int(event["number"]), event)
        self.asked = 0

    def ask(self) -> Choices:
        """Return the next point."""
        self.asked += 1
        self._trial = self.study.ask()
        return self.space.suggest(self._trial)

    def tell(self, ms: float, short: float) -> None:
        """Tell what came of the point that was asked for last.

        Args:
            ms: of a request.
            short: how far its promise is from likely; at most 0 where it is likely.
        """
        number, params = self._trial.number, dict(self._trial.params)
        known = self._past.get(number)
        if known and known["params"] == params:
            ms, short = known["ms"], known["short"]
        else:
            self.journal.write(EVENT, number=number, params=params, ms=ms, short=short)
        self._trial.set_constraint(_SHORT, short)
        self.study.tell(self._trial, ms)
