"""Every plug-in of every shelf keeps its contract, without being listed anywhere."""

from fettle.core.shelf import DETECTORS
from fettle.testing import (
    DataSourceContract,
    GraphPassContract,
    MetricContract,
    PluginContract,
    RuntimeContract,
    TechniqueContract,
)


class TestTechniques(TechniqueContract):
    costly = ("quantize.aware",)  # its conversion alone takes more than ten seconds


class TestGraphPasses(GraphPassContract):
    pass


class TestRuntimes(RuntimeContract):
    pass


class TestMetrics(MetricContract):
    pass


class TestDataSources(DataSourceContract):
    pass


class TestDetectors(PluginContract):
    shelf = DETECTORS
