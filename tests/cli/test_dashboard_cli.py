"""`fettle monitor`: the page, prices, alerts and the files for Prometheus."""

import dataclasses
import json
import time

import pytest

from fettle.monitor.log import PredictionLog
from fettle.monitor.prediction import Prediction

START = int(time.time() - 3600) // 60 * 60 * 10**9
ONE = Prediction("r", START, "digits", sha="a" * 8, compute_us=100, total_us=1200, queue_us=100,
                 top=1)  # fmt: skip


@pytest.fixture
def log(tmp_path):
    """A log of 400 requests of two arms in ten minutes, with a shadow; at the end many fail."""
    path = tmp_path / "log.db"
    with PredictionLog(path) as log:
        for at in range(400):
            row = dataclasses.replace(ONE, id=f"r{at}", time=START + at * 15 * 10**8,
                                      route="ab"[at % 2])  # fmt: skip
            if at > 300 and at % 2:
                log.add(dataclasses.replace(row, status="Broken", error="oh"))
                continue
            log.add(row)
            log.label(row.id, 1, row.time)
            if at % 4 == 0:
                log.add(dataclasses.replace(row, route="shadow", sha="b" * 8, compute_us=300))
        assert log.flush()
    return path


def test_the_page_is_written_as_one_file(fettle, log, tmp_path):
    said = fettle("monitor", log, "--html", tmp_path / "page.html", "--split", 0.5)
    assert said.code == 0
    text = (tmp_path / "page.html").read_text("utf-8")
    assert text.startswith("<!doctype html>")
    assert "digits" in text
    assert "costs 3.00 times less" in said.out
    assert "Stop B" in said.out or "A/B of digits" in said.out


def test_the_json_form_holds_all_that_the_page_shows(fettle, log, tmp_path):
    prices = tmp_path / "prices.json"
    prices.write_text('{"currency": "EUR", "core_hour": 3.6}')
    said = fettle("monitor", log, "--json", "--prices", prices, "--split", 0.5).json
    assert {"series", "ab", "cost", "shadow", "drift", "alerts", "findings"} <= set(said)
    assert said["ab"][0]["sizes"]["mismatch"] is False
    (ledger,) = said["cost"]
    assert ledger["money"]["saved"]["value"] == pytest.approx(1000 * 200e-6 * 0.001)


def test_alerts_are_kept_and_told_by_the_exit_code(fettle, log, tmp_path):
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        "rules:\n  - {name: failing, measure: failed, above: 0.2, for: 1m, severity: page,"
        " summary: '{model} fails'}\nhistory: kept.jsonl\n"
    )
    said = fettle("monitor", log, "--window", 60, "--rules", rules)
    assert said.code == 1
    assert "page: digits fails" in said.out
    kept = [json.loads(line) for line in (tmp_path / "kept.jsonl").read_text().splitlines()]
    assert [line["name"] for line in kept if "name" in line] == ["failing"]
    again = fettle("monitor", log, "--window", 60, "--rules", rules, "--json")
    assert again.code == 1
    assert again.json["findings"][0]["text"] == "digits fails"
    assert (tmp_path / "kept.jsonl").read_text().count("failing") == 1


def test_files_for_prometheus_need_no_log(fettle, tmp_path):
    said = fettle("monitor", "--emit-prometheus", tmp_path / "out", "--json")
    assert said.code == 0
    assert len(said.json["written"]) == len(list((tmp_path / "out").iterdir())) == 3


def test_wrong_input(refused, log, tmp_path):
    refused(["monitor"], "a LOG was expected")
    refused(["monitor", log, "--prices", tmp_path / "none.yaml"], "was expected at")
    refused(["monitor", log, "--rules", tmp_path / "none.yaml"], "was expected at")
    refused(["monitor", log, "--split", "2"], "`share`")
    (tmp_path / "file").write_text("")
    refused(["monitor", log, "--html", tmp_path / "file" / "page.html"], "can't write")
