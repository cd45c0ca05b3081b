"""Strategies: where a search's candidates come from, the cheapest first.

The folder is the registry: a module that holds one `class X(Strategy)` takes part; `order` says
when.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil

from fettle.search.strategies._strategy import Strategy

__all__ = ["Strategy", "strategies"]


def strategies() -> list[Strategy]:
    """Return one of each strategy, in the order in which they are pursued."""
    found: list[Strategy] = []
    for module in pkgutil.iter_modules(__path__):
        if module.name.startswith("_"):
            continue
        loaded = importlib.import_module(f"{__name__}.{module.name}")
        for _, cls in inspect.getmembers(loaded, inspect.isclass):
            if issubclass(cls, Strategy) and cls.__module__ == loaded.__name__:
                found.append(cls())
    return sorted(found, key=lambda strategy: strategy.order)
