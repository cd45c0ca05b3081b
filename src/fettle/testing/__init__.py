"""Public help for tests: contracts that every plug-in keeps, and small fakes.

    from fettle.testing import TechniqueContract

    class TestMine(TechniqueContract):
        names = ("mine.technique",)  # found through the package's entry points

The contracts need pytest; the fakes don't. Names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fettle.testing._graph_pass import GraphPassContract
    from fettle.testing._metric import MetricContract
    from fettle.testing._plugin import PluginContract
    from fettle.testing._runtime import RuntimeContract
    from fettle.testing._sample import Sample, sample
    from fettle.testing._source import DataSourceContract
    from fettle.testing._task import TaskContract
    from fettle.testing._technique import TechniqueContract
    from fettle.testing.fakes import FakeSession, Recorder, TinyTask

_HOMES = {
    "DataSourceContract": "_source",
    "FakeSession": "fakes",
    "GraphPassContract": "_graph_pass",
    "MetricContract": "_metric",
    "PluginContract": "_plugin",
    "Recorder": "fakes",
    "RuntimeContract": "_runtime",
    "Sample": "_sample",
    "TaskContract": "_task",
    "TechniqueContract": "_technique",
    "TinyTask": "fakes",
    "sample": "_sample",
}

__all__ = [
    "DataSourceContract",
    "FakeSession",
    "GraphPassContract",
    "MetricContract",
    "PluginContract",
    "Recorder",
    "RuntimeContract",
    "Sample",
    "TaskContract",
    "TechniqueContract",
    "TinyTask",
    "sample",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module `fettle.testing` has no `{name}`")
    return getattr(importlib.import_module(f"fettle.testing.{_HOMES[name]}"), name)
