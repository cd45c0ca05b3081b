"""The whole demonstration, as processes: once undisturbed, once killed twice and continued."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper
from safetensors.numpy import load_file

from fettle.core.bundle import Bundle
from fettle.search.demo import RECIPES
from fettle.search.journal import Journal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def start(out):
    words = [sys.executable, "-m", "fettle", "demo", "--out", str(out), "--json"]
    with Path(f"{out}.log").open("a") as log:
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log, text=True)


def finish(process):
    out, _ = process.communicate(timeout=3000)
    return process.returncode, json.loads(out)


def kill_when(process, happened):
    try:
        while not happened():
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.02)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()


def stages(out):
    events = Journal(out / "journal.jsonl").read()
    return [(event["key"], event["name"]) for event in events if event["event"] == "stage"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "demo"
    return out, *finish(start(out))


@pytest.fixture(scope="module")
def continued(tmp_path_factory):
    """The demo, killed when its third stage was done, and in the middle of a training."""
    out = tmp_path_factory.mktemp("continued") / "demo"
    kill_when(start(out), lambda: len(stages(out)) >= 3)
    done = stages(out)
    kill_when(start(out), lambda: any(out.glob("checkpoints/*/fit.safetensors")))
    assert stages(out)[: len(done)] == done
    return out, *finish(start(out))


def test_the_demo_passes_with_a_model_of_a_quarter_the_size(whole):
    out, code, result = whole
    best, baseline = result["best"], result["baseline"]
    assert (code, result["verdict"]) == (0, "pass")
    assert best["size_bytes"] <= 0.25 * baseline["size_bytes"]
    assert best["drop"]["high"] <= result["budget"]["max_drop"]
    for name in ("vs_same_runtime_fp32", "vs_best_fp32", "vs_torch_eager"):
        assert best["speedup"][name].keys() == {"value", "low", "high"}
    assert {row["name"] for row in result["trials"]} >= {"FP32", *RECIPES}
    assert Bundle.open(out / "best").manifest.recipe == best["recipe"]
    assert (out / "report.html").exists()
    assert result["served"]["answer"]["outputs"]


def test_a_killed_demo_continues_and_ends_alike(whole, continued):
    out, code, result = continued
    assert code == 0
    assert result["verdict"] == whole[2]["verdict"]
    assert qualities(result) == qualities(whole[2])
    assert "continuing at step" in Path(f"{out}.log").read_text()


def test_what_was_finished_is_not_done_again(continued):
    names = [key for key, _ in stages(continued[0])]
    assert len(names) == len(set(names))


def test_the_weights_are_the_same_bit_for_bit(whole, continued):
    ours, theirs = (weights(found[0]) for found in (continued, whole))
    assert ours.keys() == theirs.keys()
    assert len(ours) > 5
    for stage in ours:
        assert ours[stage].keys() == theirs[stage].keys(), stage
        for name, array in ours[stage].items():
            assert array.tobytes() == theirs[stage][name].tobytes(), (stage, name)


def qualities(result):
    """Return drop and metric by recipe where no timing has a say in the arithmetic."""
    rows = [row for row in result["trials"] if not row["lowering"]]
    return {row["recipe"]: (row["metric"], row["drop"]) for row in rows}


def weights(out):
    """Return the arrays of every stage that keeps a module or a graph, by the stage's key."""
    found = {}
    for folder in out.glob("stages/*"):
        if (folder / "model").exists():
            found[folder.name] = load_file(folder / "model" / "weights.safetensors")
        if (folder / "onnx").exists():
            graph = onnx.load(folder / "onnx" / "model.onnx").graph
            found[folder.name] = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    return found
