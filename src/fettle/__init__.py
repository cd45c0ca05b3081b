"""fettle: from a trained model to the fastest artifact proven inside an accuracy budget.

Everything named here is loaded when it is first used, so that `import fettle` is quick and needs
neither torch nor an engine.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from fettle.compress.quantize.in_process import quantize_dynamic, quantize_static
    from fettle.core.bundle import Bundle
    from fettle.core.context import Context
    from fettle.core.recipe import Recipe
    from fettle.core.verdict import Budget, Verdict
    from fettle.measure.sparsity import sparsity
    from fettle.search.asked import Optimized, optimize
    from fettle.search.compress import compress, study
    from fettle.search.demo import demo
    from fettle.search.study import Candidate, Setting
    from fettle.search.workshop import Source

_HOMES = {
    "Budget": "core.verdict",
    "Bundle": "core.bundle",
    "Candidate": "search.study",
    "Context": "core.context",
    "Optimized": "search.asked",
    "Recipe": "core.recipe",
    "Setting": "search.study",
    "Source": "search.workshop",
    "Verdict": "core.verdict",
    "compress": "search.compress",
    "demo": "search.demo",
    "optimize": "search.asked",
    "quantize_dynamic": "compress.quantize.in_process",
    "quantize_static": "compress.quantize.in_process",
    "sparsity": "measure.sparsity",
    "study": "search.compress",
}

__all__ = [
    "Budget",
    "Bundle",
    "Candidate",
    "Context",
    "Optimized",
    "Recipe",
    "Setting",
    "Source",
    "Verdict",
    "compress",
    "demo",
    "optimize",
    "quantize_dynamic",
    "quantize_static",
    "sparsity",
    "study",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module `fettle` has no `{name}`")
    return getattr(importlib.import_module(f"fettle.{_HOMES[name]}"), name)
