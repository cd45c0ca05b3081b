"""`fettle optimize` as a process that is killed at ten moments and continued each time.

The moments are drawn by a seed over the whole of the search: so many stages finished, and a part of
the time that the next one takes. What is small is sought, and what is asked for is tried alone, so
that no timing leads the search along another way: all that is no time has to come out the same.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import pairwise
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
         "--max-drop", "0.1", "--seconds", "0.3", "--objective", "size",
         "--only", "prune.channels", "--only", "distill.logits", "--json"]  # fmt: skip


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
    """The search undisturbed: its folder, exit code and result."""
    out = tmp_path_factory.mktemp("whole") / "out"
    return out, *finish(start(out))


@pytest.fixture(scope="module")
def continued(start, whole, tmp_path_factory):
    """The search, killed ten times and then let be: folder, stages at each kill, code, result."""
    out = tmp_path_factory.mktemp("continued") / "out"
    seconds = [event["seconds"] for event in events(whole[0]) if event["event"] == "stage"]
    met = []
    for moment in moments(len(seconds)):
        process, (stages, part) = start(out), divmod(moment, 1)
        kill(process, out, int(stages), part * seconds[int(stages)])
        met.append(len(finished(out)))
        assert_sound(out)
    return out, met, *finish(start(out))


def moments(stages):
    """Return ten moments of a search, in stages from its beginning: one in each tenth of it."""
    return (np.arange(KILLS) + np.random.default_rng(1).uniform(0, 1, KILLS)) * stages / KILLS


def kill(process, out, stages, seconds):
    """Kill a process so many seconds after so many stages were finished: it must be at work."""
    while len(finished(out)) < stages:
        assert process.poll() is None, "it came to its end before the moment that was drawn"
        time.sleep(0.01)
    begun = time.monotonic()
    while time.monotonic() < begun + seconds and len(finished(out)) <= stages:
        assert process.poll() is None, "it came to its end before the moment that was drawn"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def finished(out):
    """Return the folders of finished stages: one is there only once it is whole."""
    return {path for path in out.glob("stages/*") if not path.name.startswith(".")}


def events(out):
    return [json.loads(line) for line in (out / "journal.jsonl").read_bytes().splitlines()]


def assert_sound(out):
    """Every line of the journal is an event; every stage is whole, and told once at most."""
    journal = out / "journal.jsonl"
    if journal.exists():
        assert journal.read_bytes().endswith(b"\n")
        assert all({"time", "event"} <= event.keys() for event in events(out))
        keys = [event["key"] for event in events(out) if event["event"] == "stage"]
        assert len(keys) == len(set(keys))
        assert set(keys) <= {folder.name for folder in finished(out)}
    for folder in finished(out):
        assert json.loads((folder / "stage.json").read_text())["seconds"] >= 0


def test_it_was_killed_ten_times_from_its_beginning_to_its_end(whole, continued):
    met, stages = continued[1], len(finished(whole[0]))
    assert len(met) == KILLS
    assert all(before <= after for before, after in pairwise(met))
    assert met[0] < 0.2 * stages
    assert met[-1] >= 0.8 * stages
    assert len(set(met)) >= KILLS / 2


def test_it_ended_well(continued):
    out, _, code, result = continued
    assert (code, result["verdict"]) == (0, "pass")
    assert result == json.loads((out / "result.json").read_text())
    assert Bundle.open(out / "best").manifest.recipe == result["best"]["recipe"]


def test_no_finished_stage_was_repeated(whole, continued):
    """What was there is used: the journal tells each stage once, and all that the other made."""
    counts = Counter(event["key"] for event in events(continued[0]) if event["event"] == "stage")
    assert len(counts) > 12
    assert {key for key, many in counts.items() if many > 1} == set()
    assert names(continued[0]) == names(whole[0])


def names(out):
    """Return the names of all stages but the timings, of which each start may need another."""
    records = (json.loads((folder / "stage.json").read_text()) for folder in finished(out))
    return Counter(record["name"] for record in records if record["name"] != "time")


def test_nothing_half_made_is_left(continued):
    assert list(continued[0].rglob("*.tmp")) == []


def test_the_result_is_that_of_the_search_that_was_never_killed(whole, continued):
    ours, theirs = (timeless(found[-1]) for found in (continued, whole))
    assert ours["search"]["looks"]
    assert any(row["recipe"].startswith("distill.logits") for row in ours["trials"])
    assert any(row["recipe"].startswith("prune.channels") for row in ours["trials"])
    assert ours == theirs


ROW = ("recipe", "name", "runtime", "precision", "metric", "drop", "size_bytes", "macs", "sparsity",
       "refused")  # fmt: skip


def timeless(result):
    """Return what of a result is neither a time nor follows from one."""
    search = {k: result["search"][k] for k in ("stopped", "objective", "looks", "refused")}
    rows = {k: row_of(result[k]) for k in ("best", "baseline")}
    told = ("verdict", "verdict_text", "needed", "budget", "fingerprints", "interrupted")
    return {**{k: result[k] for k in told}, **rows, "search": search,
            "trials": [row_of(row) for row in result["trials"]]}  # fmt: skip


def row_of(row):
    return {**{k: row[k] for k in ROW}, "stages": [stage["name"] for stage in row["stages"]]}


def test_what_both_made_is_the_same_bit_for_bit(whole, continued):
    """Also what was trained in several pieces."""
    ours, theirs = (weights_in(found[0]) for found in (continued, whole))
    assert ours.keys() == theirs.keys()
    assert len(ours) >= 4
    for stage in ours:
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
