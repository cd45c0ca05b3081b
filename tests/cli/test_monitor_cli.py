"""`fettle monitor`: a log or a table, told on the command line."""

import dataclasses

import pytest

from fettle.core.bundle import Manifest, write_bundle
from fettle.core.shelf import RUNTIMES
from fettle.monitor.log import PredictionLog
from fettle.monitor.prediction import Prediction

START = 4_102_444_800 * 10**9  # 2100: nothing is too old to keep
ONE = Prediction("r", START, "digits", compute_us=1000, total_us=1200, queue_us=100)
CHECKS = ({"name": "latency", "sizes": {"1": {"p50": 0.5, "p95": 1.0, "p99": 5.0}}},)


@pytest.fixture
def log(tmp_path):
    """A log of 1,200 requests in two minutes, of which each hundredth failed."""
    path = tmp_path / "log.db"
    with PredictionLog(path) as log:
        for at in range(1200):
            row = dataclasses.replace(ONE, id=f"r{at}", time=START + at * 10**8)
            if at % 100 == 0:
                row = dataclasses.replace(row, status="Broken", error="index out of bounds")
            log.add(row)
    return path


def test_a_log_is_told(fettle, log):
    said = fettle("monitor", log, "--window", 60)
    assert said.code == 0
    assert "digits  1  only: 1200 requests, 1.00% failed" in said.out
    assert "2100-01-01 00:01:00" in said.out
    assert "12 × Broken: index out of bounds" in said.out
    assert "  all " in said.out
    assert "… 100 earlier ones" in fettle("monitor", log, "--window", 1).out


def test_the_json_form_agrees(fettle, log):
    (series,) = fettle("monitor", log, "--json").json["series"]
    assert series["all"]["n"] == 1200
    assert series["all"]["latency_ms"]["p99"]["value"] == pytest.approx(1.2, rel=0.004)
    assert series["promise"] is None


def test_computing_is_held_against_the_checklist(fettle, log, tmp_path, make_linear):
    source = tmp_path / "files"
    source.mkdir()
    make_linear(source / "model.onnx")
    session = RUNTIMES.make("onnxruntime", threads=1).build(source / "model.onnx")
    manifest = Manifest(session.inputs, session.outputs, "@ onnxruntime", checks=CHECKS)
    session.close()
    bundle = write_bundle(tmp_path / "bundle", manifest, source).path
    said = fettle("monitor", log, "--bundle", bundle, "--json")
    assert said.json["series"][0]["promise"]["slower"] == ["p50"]
    assert "slower than proven in p50" in fettle("monitor", log, "--bundle", bundle).out


def test_a_table_is_told(fettle, tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("time,latency_ms,status\n1,2,ok\n2,4,Late\n")
    said = fettle("monitor", table)
    assert said.code == 0
    assert "2 requests, 50.00% failed" in said.out


def test_no_predictions(fettle, tmp_path):
    PredictionLog(tmp_path / "log.db").close()
    assert fettle("monitor", tmp_path / "log.db").out == "no predictions\n"


def test_wrong_input(refused, log, tmp_path):
    refused(["monitor", tmp_path / "none.db"], "there is none")
    refused(["monitor", tmp_path], "there is none")
    refused(["monitor", log, "--window", "0"], "--window")
    refused(["monitor", log, "--window", "0.0001"], "expects a length")
    refused(["monitor", log, "--bundle", tmp_path], "no bundle")
    log.write_bytes(log.read_bytes()[:9000])
    refused(["monitor", log], "damaged or truncated")
