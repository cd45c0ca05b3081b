"""How a search went: for its record, and for whoever asked for what can't be had."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fettle.core.errors import CheckFailed

if TYPE_CHECKING:
    from fettle.search.optimize import Search


def account(search: Search, stopped: str) -> dict[str, Any]:
    """Return how a search went and why it `stopped`, for the record and `--explain`."""
    return {
        "stopped": stopped,
        "objective": search.wish.objective,
        "time_limit": search.wish.seconds,
        "looks": search.proofs,
        "refused": [{"recipe": str(c.recipe), "why": why} for c, why in search.refused],
    }


def check_fruit(search: Search) -> None:
    """Refuse to prove the untouched model where something was asked for, and nothing came of it.

    Raises:
        CheckFailed: with the reason of each that was tried.
    """
    if not search.wish.only or any(t.recipe.steps and not t.refused for t in search.trials):
        return
    found = [(str(t.recipe), t.refused) for t in search.trials if t.recipe.steps]
    found += [(str(candidate.recipe), why) for candidate, why in search.refused]
    reasons = "; ".join(f"{recipe}: {why}" for recipe, why in found) or "none of it fits the model"
    raise CheckFailed(
        f"nothing came of what `only` names ({reasons}): name something else, or leave it out"
    )
