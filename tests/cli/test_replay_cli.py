"""`fettle replay`: a failed prediction is run again from the command line."""

import dataclasses

import numpy as np
import pytest

from fettle.core.bundle import Manifest, write_bundle
from fettle.core.shelf import RUNTIMES
from fettle.monitor.capsule import Capsule
from fettle.monitor.prediction import Prediction


@pytest.fixture
def bundle(tmp_path, make_linear):
    """Make a bundle of a linear classifier with random weights."""

    def make(name, seed):
        source = tmp_path / f"{name}-files"
        source.mkdir()
        make_linear(source / "model.onnx", seed=seed)
        session = RUNTIMES.make("onnxruntime", threads=1).build(source / "model.onnx")
        manifest = Manifest(session.inputs, session.outputs, "@ onnxruntime", "onnxruntime")
        session.close()
        return write_bundle(tmp_path / name, manifest, source).path

    return make


@pytest.fixture
def capsule(tmp_path):
    """Write a capsule of one image, each pixel of which has this value."""

    def of(value):
        inputs = {"input": np.full((1, 1, 8, 8), value, np.float32)}
        row = Prediction("r1", 7, "digits", status="Broken", error="the engine failed")
        path = tmp_path / "capsule.npz"
        Capsule(dataclasses.replace(row, inputs=inputs), {"cpu": "6502"}, {}).save(path)
        return path

    return of


def test_a_failure_that_is_seen_again(fettle, bundle, capsule):
    said = fettle("replay", capsule(np.nan), "--model", bundle("one", 0))
    assert said.code == 1
    assert "request r1 of digits" in said.out
    assert "the engine failed" in said.out
    assert "fails: numbers that are not finite: 10 in `logits`" in said.out
    assert "processor 6502 →" in said.out


def test_two_models_that_answer(fettle, bundle, capsule):
    words = ("--model", bundle("one", 0), "--shadow", bundle("two", 1))
    said = fettle("replay", capsule(1.0), *words, "--json")
    assert said.code == 0
    assert said.json["failed"] is False
    assert [run["who"] for run in said.json["runs"]] == ["model", "shadow"]
    (difference,) = said.json["differences"]
    weights = [np.random.default_rng(seed).normal(size=(64, 10)).astype(np.float32).sum(0)
               for seed in (0, 1)]  # fmt: skip
    assert difference["max"] == pytest.approx(np.abs(weights[0] - weights[1]).max(), rel=1e-4)
    assert difference["flips"] == int(weights[0].argmax() != weights[1].argmax())
    text = fettle("replay", capsule(1.0), *words).out
    assert "`logits` differs by" in text


def test_wrong_input(refused, bundle, capsule, tmp_path):
    path = bundle("one", 0)
    refused(["replay", tmp_path / "none.npz", "--model", path], "no such file")
    refused(["replay", path / "model.onnx", "--model", path], "no capsule")
    refused(["replay", capsule(1.0), "--model", tmp_path], "no bundle")
    refused(["replay", capsule(1.0)], "--model")
