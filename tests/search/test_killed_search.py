"""`fettle optimize` as a process that is killed at ten moments and continued each time."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from safetensors.numpy import load_file

from fettle import models, tasks
from fettle.core.bundle import Bundle
from fettle.core.context import Context
from fettle.train import FitPlan, fit

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

MODEL = "cifar:resnet8x0.5"
KILLS = 10
# a search with several trainings that ends by itself
WORDS = ["--data", "digits", "--target", "onnxruntime", "--batch", "16", "--threads", "1",
         "--max-drop", "0.2", "--seconds", "0.3", "--only", "prune.channels", "--json"]  # fmt: skip


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    task, path = tasks.load("digits"), tmp_path_factory.mktemp("model") / "w.safetensors"
    module = models.load(MODEL, signature=task.signature)
    fit(module, task, FitPlan(epochs=3, lr=0.1), Context())
    models.save_weights(module, path)
    return path


@pytest.fixture(scope="module")
def start(weights):
    """Start a search in `out`; its stderr is added to `out.log`."""
    running = []

    def start(out):
        words = ["optimize", "--model", MODEL, "--weights", str(weights), *WORDS]
        with Path(f"{out}.log").open("a") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "fettle", *words, "--out", str(out)],
                stdout=subprocess.PIPE, stderr=log, text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.wait()
        process.stdout.close()


def finish(process):
    out, _ = process.communicate(timeout=3000)
    return process.returncode, json.loads(out)


@pytest.fixture(scope="module")
def whole(start, tmp_path_factory):
    """The search undisturbed: its folder, exit code, result, and seconds of work."""
    out = tmp_path_factory.mktemp("whole") / "out"
    return out, *finish(start(out))


@pytest.fixture(scope="module")
def continued(start, whole, tmp_path_factory):
    """The search, killed ten times at moments that a seed draws, and then let be."""
    out = tmp_path_factory.mktemp("continued") / "out"
    rng = np.random.default_rng(0)
    longest = 2.0 * whole[2]["seconds"] / KILLS  # on average, the kills cover the whole of it
    kills = 0
    for seconds in rng.uniform(0.0, longest, KILLS):
        process, before = start(out), starts(out)
        kills += killed(process, lambda before=before: starts(out) > before, seconds)
        assert_sound(out)
    return out, kills, *finish(start(out))


def killed(process, at_work, seconds):
    """Kill a process so long after it began to work; say whether it was still there."""
    while not at_work() and process.poll() is None:
        time.sleep(0.01)
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        time.sleep(0.01)
    alive = process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    return alive


def lines(out):
    path = out / "journal.jsonl"
    return path.read_bytes().split(b"\n") if path.exists() else [b""]


def starts(out):
    return sum(b'"event": "start"' in line for line in lines(out))


def assert_sound(out):
    """Every line of the journal but a torn last one is an event; every stage is whole."""
    *whole, last = lines(out)
    assert all({"time", "event"} <= json.loads(line).keys() for line in whole)
    assert last == b"" or b"\n" not in last
    for folder in out.glob("stages/[!.]*"):
        assert json.loads((folder / "stage.json").read_text())["seconds"] >= 0


def test_it_was_killed_ten_times_and_ended_well(whole, continued):
    out, kills, code, result = continued
    assert kills >= KILLS - 2  # it may have come to its end before
    assert (code, result["verdict"]) == (whole[1], whole[2]["verdict"]) == (0, "pass")
    assert result == json.loads((out / "result.json").read_text())
    assert Bundle.open(out / "best").manifest.recipe == result["best"]["recipe"]


def test_no_finished_stage_was_repeated(continued):
    out = continued[0]
    events = [json.loads(line) for line in lines(out) if line]
    counts = Counter(event["key"] for event in events if event["event"] == "stage")
    assert len(counts) > 8
    assert {key for key, many in counts.items() if many > 1} == set()


def test_nothing_half_made_is_left(continued):
    assert list(continued[0].rglob("*.tmp")) == []


def test_what_both_made_is_the_same_bit_for_bit(whole, continued):
    """Also what was trained in several pieces. Timings may lead the two along other ways."""
    ours, theirs = (weights_in(found[0]) for found in (continued, whole))
    both = ours.keys() & theirs.keys()
    assert len(both) >= 4
    for stage in both:
        assert ours[stage].keys() == theirs[stage].keys(), stage
        for name, array in ours[stage].items():
            assert array.tobytes() == theirs[stage][name].tobytes(), (stage, name)


def weights_in(out):
    """Return the arrays of every stage that keeps a module or a graph, by the stage's key."""
    found = {}
    for folder in out.glob("stages/*"):
        if (folder / "model").exists():
            found[folder.name] = load_file(folder / "model" / "weights.safetensors")
        if (folder / "onnx").exists():
            graph = onnx.load(folder / "onnx" / "model.onnx").graph
            found[folder.name] = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    return found
