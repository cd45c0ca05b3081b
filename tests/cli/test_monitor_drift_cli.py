"""`fettle monitor --bundle`: drift, accuracy and the cause, told on the command line."""

import numpy as np
import pytest

from fettle.core.bundle import Manifest, write_bundle
from fettle.core.shelf import RUNTIMES
from fettle.monitor.log import PredictionLog
from fettle.monitor.prediction import Prediction

START = 4_102_444_800 * 10**9


@pytest.fixture
def bundle(tmp_path, make_linear):
    """A bundle whose reference is normal, and whose budget is one point of 90 %."""
    (source := tmp_path / "files").mkdir()
    make_linear(source / "model.onnx")
    session = RUNTIMES.make("onnxruntime", threads=1).build(source / "model.onnx")
    random = np.random.default_rng(0)
    arrays = {"input/x": random.normal(0, 1, 200), "output/y": random.normal(0, 1, (200, 3))}
    np.savez(source / "reference.npz", allow_pickle=False, **arrays)
    manifest = Manifest(
        session.inputs, session.outputs, "@ onnxruntime",
        measurements={"metric": {"value": 0.9}}, verdict={"budget": {"metric": "top1"}},
    )  # fmt: skip
    session.close()
    return write_bundle(tmp_path / "bundle", manifest, source).path


@pytest.fixture
def log(tmp_path):
    """200 requests with labels and arrays, whose inputs are far from the reference."""
    random = np.random.default_rng(1)
    with PredictionLog(tmp_path / "log.db") as log:
        for at in range(200):
            scores = random.normal(0, 1, (1, 3))
            top, confidence = int(scores.argmax()), 0.5
            inputs = {"x": random.normal(3, 1, 1)}
            log.add(Prediction(f"r{at}", START + at * 10**8, "m", top=top, confidence=confidence,
                               inputs=inputs, outputs={"y": scores}))  # fmt: skip
            log.label(f"r{at}", top if at % 2 else 7)
    return tmp_path / "log.db"


def test_drift_accuracy_and_cause_are_told(fettle, log, bundle):
    said = fettle("monitor", log, "--bundle", bundle, "--window", 60)
    assert said.code == 0
    assert "drift: drifted; 1 of 1 windows alarm (5% of clean ones would)" in said.out
    assert "input/x: kolmogorov_smirnov 0.8" in said.out
    assert "accuracy by 200 labels: 50.00%" in said.out
    assert "at any time, proven 90.00%" in said.out
    assert "do: retrain" in said.out


def test_the_json_form_agrees(fettle, log, bundle, tmp_path):
    asked = ("--bundle", bundle, "--window", 60, "--detector", "psi", "--json", "--alpha", 0.01)
    page = tmp_path / "page.html"
    told = fettle("monitor", log, *asked, "--html", page).json
    assert told["drift"]["alpha"] == 0.01
    detectors = {each["name"]: each["detector"] for each in told["drift"]["features"]}
    assert detectors["input/x"] == detectors["class"] == "drift.psi"
    assert detectors["output/y (all)"] == "drift.mmd"
    assert told["triage"]["cause"] == "input drift"
    assert "input/x" in page.read_text()


def test_a_model_without_ranges_says_so(fettle, log, bundle):
    said = fettle("monitor", log, "--bundle", bundle, "--ranges", 5)
    assert "no calibrated activations" in said.out


def test_wrong_input(fettle, log, bundle):
    said = fettle("monitor", log, "--bundle", bundle, "--detector", "psy")
    assert said.code == 2
    assert "drift.psi" in said.err
    said = fettle("monitor", log, "--bundle", bundle, "--alpha", 2)
    assert said.code == 2
    assert "alpha" in said.err
    assert fettle("monitor", log, "--reference", log.with_name("none.csv")).code == 2
