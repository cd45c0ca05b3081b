import subprocess

import numpy as np
import psutil
import pytest
from onnx import helper

from fettle.core.errors import CheckFailed, InputError, ModelError
from fettle.core.shelf import METRICS, RUNTIMES
from fettle.measure import Artifact, _fresh_process, _memory_probe, peak_memory
from fettle.measure._memory_probe import high_water, probe
from fettle.measure.memory import footprint_in

W = np.ones((1024, 4096), np.float32)  # 16 MiB


@pytest.fixture
def product(make_onnx):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    return make_onnx(nodes, {"w": W}, {"x": ["batch", 1024]})


@pytest.fixture
def artifact(product):
    return lambda **given: Artifact(product, RUNTIMES.make("onnxruntime", threads=1), **given)


def test_a_fresh_process_holds_at_least_the_weights(artifact):
    found = peak_memory(artifact())
    assert found.peak_bytes - found.baseline_bytes >= W.nbytes
    assert found.baseline_bytes > 10_000_000
    assert found.imported_bytes <= found.loaded_bytes <= found.peak_bytes
    assert found.loaded_bytes - found.imported_bytes >= W.nbytes
    assert 0 < found.unique_bytes <= found.proportional_bytes <= found.served_bytes
    assert found.to_json()["peak_bytes"] == found.peak_bytes


def test_a_larger_batch_needs_more(artifact):
    """4,096 answers of 4,096 numbers are 64 MiB; loading alone peaks at the weights twice."""
    one = METRICS.make("memory").measure(artifact())
    many = METRICS.make("memory").measure(artifact(batch=4096))
    assert many.value - one.value > 40 * 2**20
    assert (one.name, one.unit, one.better) == ("peak_memory", "B", "lower")


def test_what_the_runtime_refuses_is_told(product):
    runtime = RUNTIMES.make("onnxruntime", precision="bf16")
    with pytest.raises(ModelError, match="bf16"):
        peak_memory(Artifact(product, runtime))


def test_a_model_that_fails_at_run_time_is_told(make_onnx):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    path = make_onnx(nodes, {"w": W}, {"x": ["batch", "free"]})
    asked = {"model": str(path), "runtime": "onnxruntime", "knobs": {}, "lowering": [],
             "batch": 1, "shapes": {}, "runs": 1}  # fmt: skip
    assert "MatMul" in probe(asked)["refused"]
    told = probe({**asked, "shapes": {"x": [1024]}})
    assert told["bytes"]["peak"] >= told["bytes"]["baseline"] > 0


def test_what_an_engine_throws_is_told(product, monkeypatch):
    def throws(*_):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(type(RUNTIMES.make("onnxruntime")), "build", throws)
    asked = {"model": str(product), "runtime": "onnxruntime", "knobs": {}, "lowering": [],
             "batch": 1, "shapes": {}, "runs": 1}  # fmt: skip
    assert probe(asked) == {"refused": "onnxruntime can't run the model: out of luck"}


def test_a_runtime_is_needed(product):
    with pytest.raises(InputError, match="with a runtime"):
        peak_memory(Artifact(product))


def test_too_long_is_told(artifact):
    with pytest.raises(CheckFailed, match="longer than"):
        peak_memory(artifact(), timeout_seconds=0.01)


def test_a_process_that_dies_is_told(artifact, monkeypatch):
    dead = subprocess.CompletedProcess([], -9, stdout="", stderr="")
    monkeypatch.setattr(_fresh_process.subprocess, "run", lambda *_, **__: dead)
    with pytest.raises(CheckFailed, match="code -9"):
        peak_memory(artifact())


def test_a_system_without_proc_tells_the_peak_only(product, monkeypatch, tmp_path):
    monkeypatch.setattr(_memory_probe, "_PROC", tmp_path)
    asked = {"model": str(product), "runtime": "onnxruntime", "knobs": {}, "lowering": [],
             "batch": 1, "shapes": {}, "runs": 1}  # fmt: skip
    found = footprint_in(probe(asked))
    assert found.peak_bytes > W.nbytes
    assert (found.loaded_bytes, found.unique_bytes) == (None, None)


def test_the_high_water_mark_is_at_least_what_is_held_now():
    """But for the pages by which the kernel's two counters may lag."""
    held = np.ones(8_000_000)
    assert high_water() >= 0.99 * psutil.Process().memory_info().rss
    assert high_water() >= held.nbytes
