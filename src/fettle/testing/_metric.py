"""The contract of a metric: a number with its unit, its interval and its sample count."""

from __future__ import annotations

import json
import math

import pytest

from fettle.core.errors import ModelError
from fettle.core.measurement import Measurement
from fettle.core.shelf import METRICS, RUNTIMES
from fettle.measure import Artifact, Metric
from fettle.runtimes import Runtime
from fettle.testing._plugin import PluginContract
from fettle.testing._sample import sample


class MetricContract(PluginContract):
    """What a metric keeps, tried on a small real model in onnxruntime."""

    shelf = METRICS

    def metric(self, name: str) -> Metric:
        """Return the metric with its defaults."""
        made = self.load(name)()
        assert isinstance(made, Metric)
        return made

    def artifact(self) -> Artifact:
        """Return what is measured."""
        runtime = RUNTIMES.make("onnxruntime", threads=1)
        assert isinstance(runtime, Runtime)
        return Artifact(sample().onnx, runtime, task=sample().task)

    def test_measures(self, name: str) -> None:
        """The value is finite and within its interval, with a unit and a count."""
        found = self.metric(name).measure(self.artifact())
        assert isinstance(found, Measurement)
        assert found.name
        assert math.isfinite(found.value)
        assert found.low <= found.value <= found.high
        assert found.n >= 1
        assert found.better in ("lower", "higher", "neither")

    def test_survives_json(self, name: str) -> None:
        """What is written to a record is read back equal."""
        found = self.metric(name).measure(self.artifact())
        assert Measurement.from_json(json.loads(json.dumps(found.to_json()))) == found

    def test_refuses_a_missing_model(self, name: str) -> None:
        """A path with nothing there is a ModelError."""
        artifact = self.artifact()
        missing = Artifact(artifact.path.with_name("missing.onnx"), artifact.runtime)
        with pytest.raises(ModelError):
            self.metric(name).measure(missing)
