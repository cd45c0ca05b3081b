"""Ctrl-C at various moments of a search: the best so far is proven, a second one leaves at once."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from fettle.core.bundle import Bundle
from fettle.search.journal import Journal

pytestmark = pytest.mark.slow

# a search that would go on for long
WORDS = ["optimize", "--model", "cifar:resnet8x0.5", "--data", "digits", "--target", "onnxruntime",
         "--batch", "16", "--threads", "1", "--max-drop", "0.2", "--json"]  # fmt: skip


class Running:
    """A search under way: its folder, its journal, its stderr in a file."""

    def __init__(self, folder, *options):
        self.out, self.log = folder / "out", folder / "stderr"
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fettle", *WORDS, *options, "--out", str(self.out)],
                stdout=subprocess.PIPE, stderr=log, text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip

    def events(self, name):
        journal = Journal(self.out / "journal.jsonl")
        return [event for event in journal.read() if event["event"] == name]

    def wait_for(self, happened):
        end = time.monotonic() + 500
        while not happened():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.02)

    def interrupt(self):
        self.process.send_signal(signal.SIGINT)

    def end(self):
        out, _ = self.process.communicate(timeout=200)
        said = self.log.read_text()
        assert "Traceback" not in said
        return self.process.returncode, json.loads(out), said


@pytest.fixture
def start(tmp_path):
    runs = []

    def start(*options):
        runs.append(Running(tmp_path, *options))
        return runs[-1]

    yield start
    for run in runs:
        run.process.kill()
        run.process.wait()
        run.process.stdout.close()


def quantized(run):
    return [e for e in run.events("trial") if e["trial"].startswith("quantize")]


def shaped(run):
    """Whether smaller shapes are under way: the first two exports are the model and its INT8."""
    return sum(event["name"] == "export" for event in run.events("stage")) > 2


MOMENTS = {
    "the first INT8": quantized,
    "smaller shapes": shaped,
    "a training": lambda run: list(run.out.glob("checkpoints/*/fit.safetensors")),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_best_so_far_is_proven(start, moment):
    run = start("--seconds", "0.3")
    run.wait_for(lambda: MOMENTS[moment](run))
    run.interrupt()
    code, result, said = run.end()
    assert code == 130
    assert result["interrupted"]
    assert result["search"]["stopped"] == "interrupted"
    assert result["verdict"] in ("pass", "fail", "inconclusive")
    assert "Ctrl-C again leaves at once" in said
    assert Bundle.open(run.out / "best").manifest.verdict["outcome"] == result["verdict"]
    assert list(run.out.rglob("*.tmp")) == []


def test_before_anything_was_measured_there_is_nothing_to_prove(start):
    run = start("--seconds", "0.3")
    run.wait_for(lambda: run.events("start"))
    run.interrupt()
    code, said_json, said = run.end()
    assert (code, said_json["exit_code"]) == (130, 130)
    assert said.splitlines()[-1].startswith("fettle: interrupted; the same command continues")
    assert not (run.out / "best").exists()


def test_a_second_ctrl_c_leaves_at_once_and_the_same_command_goes_on(start):
    run = start("--seconds", "300")  # so long the finalists would be timed
    run.wait_for(lambda: quantized(run))
    run.interrupt()
    run.wait_for(lambda: "Ctrl-C again leaves at once" in run.log.read_text())
    run.interrupt()
    code, said_json, _ = run.end()
    assert (code, said_json["exit_code"]) == (130, 130)
    assert not (run.out / "best").exists()

    made = [event["key"] for event in run.events("stage")]
    again = start("--seconds", "0.3")
    again.wait_for(lambda: shaped(again))
    again.interrupt()
    assert again.end()[0] == 130
    keys = [event["key"] for event in again.events("stage")]
    assert keys[: len(made)] == made
    assert len(keys) == len(set(keys))
    assert Bundle.open(again.out / "best")
