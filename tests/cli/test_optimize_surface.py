"""`--dry-run`, `--explain`, and what is seen of a search under way: on a terminal and elsewhere."""

import json
import os
import pty
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

WORDS = ["optimize", "--model", "cifar:resnet8x0.5", "--data", "digits", "--target", "onnxruntime",
         "--batch", "16", "--threads", "1", "--seconds", "0.3", "--max-drop", "0.3",
         "--skip", "prune", "--skip", "distill", "--skip", "quantize.aware"]  # fmt: skip


@pytest.fixture(scope="module")
def searched(tmp_path_factory, process):
    """The folder of a finished search, and what it said where nobody watches."""
    out = tmp_path_factory.mktemp("search") / "out"
    said = process(*WORDS, "--out", out, "--json", "--explain")
    assert said.code in (0, 1), said.err
    return out, said


def contents(out):
    return {path: path.stat().st_mtime_ns for path in out.rglob("*")}


def test_where_nobody_watches_there_are_plain_lines_and_one_object(searched):
    _, said = searched
    assert len(said.out.splitlines()) == 1
    assert said.json["search"]["explanation"]["why"]
    assert "\x1b" not in said.err
    assert "\r" not in said.err
    assert any(
        "quantize.static @ onnxruntime(threads=1): " in line for line in said.err.splitlines()
    )


def test_the_explanation_tells_layers_stages_and_what_was_left(searched):
    told = searched[1].json["search"]["explanation"]
    assert told["unknown"] == {}
    assert len(told["layers"]) >= 7
    assert all(row["after_ms"] is not None for row in told["layers"])
    assert {row["layer"] for row in told["layers"]} >= {"layer1.0.conv1", "layer3.0.conv2"}
    assert sum(row["before_ms"] for row in told["layers"]) > 0
    left = {row["recipe"] for row in told["rejected"]}
    best = searched[1].json["best"]["recipe"]
    assert best not in left
    tried = {row["recipe"] for row in searched[1].json["trials"]}
    assert tried <= {best, *left}


def test_a_finished_search_is_explained_without_running_anything(searched, fettle):
    out, _ = searched
    before = contents(out)
    said = fettle(*WORDS, "--out", out, "--explain")
    assert said.code == 0
    assert "times as fast" in said.out
    assert "Time by layer" in said.out
    assert said.err == ""
    assert contents(out) == before


def test_and_as_json_the_result_is_printed(searched, fettle):
    out, first = searched
    assert fettle(*WORDS, "--out", out, "--explain", "--json").json == first.json


def test_the_report_explains_too(searched, fettle):
    out, _ = searched
    assert fettle("report", out).code == 0
    assert "Why it won" in (out / "report.html").read_text()


def test_a_dry_run_writes_nothing_and_costs_nothing_more(searched, fettle):
    out, _ = searched
    before = contents(out)
    said = fettle(*WORDS, "--out", out, "--dry-run", "--json")
    assert said.code == 0
    assert said.json["dry_run"]
    assert said.json["seconds"] == 0
    assert contents(out) == before


def test_a_dry_run_of_a_new_search_says_what_it_would_try(fettle, tmp_path):
    said = fettle(*WORDS[:-6], "--time-limit", "10m", "--out", tmp_path / "out", "--dry-run")
    assert said.code == 0
    assert "quantize.static" in said.out
    assert "tries at most" in said.out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "needle"),
    [
        (["--model", "cifar:resnet9"], "resnet9"),
        (["--model", "nowhere.onnx"], "nowhere.onnx"),
        (["--teacher", "cifar:resnet9"], "resnet9"),
        (["--skip", "prun"], "prune"),
        (["--only", "prune"], "nothing to try"),
        (["--time-limit", "soon"], "20m"),
        (["--objective", "beauty"], "latency"),
    ],
)
def test_a_dry_run_checks_what_a_search_does(refused, tmp_path, words, needle):
    refused([*WORDS, *words, "--out", tmp_path / "o", "--dry-run"], needle)
    assert not (tmp_path / "o").exists()


def test_on_a_terminal_the_frontier_is_live_and_stdout_stays_clean(tmp_path, searched):
    out, _ = searched
    ours, theirs = pty.openpty()
    running = subprocess.Popen(
        [sys.executable, "-m", "fettle", *WORDS, "--out", str(out), "--json"],
        stdout=subprocess.PIPE, stderr=theirs, env={**os.environ, "OMP_NUM_THREADS": "1",
                                                    "TERM": "xterm", "COLUMNS": "100"},
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    answer, _ = running.communicate(timeout=200)
    assert running.returncode in (0, 1)
    assert json.loads(answer)["search"]
    text = shown.decode()
    assert "best so far" in text
    assert "provable" in text
    assert text.rstrip().endswith("\x1b[?25h") or "\x1b[?25h" in text  # the cursor is back
