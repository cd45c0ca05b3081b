"""Replaying golden examples: what counts as the same, alone and in batches."""

import numpy as np
import pytest

from fettle.core.arrays import TensorSpec
from fettle.core.bundle import Manifest, write_bundle
from fettle.core.errors import BundleError
from fettle.measure.lowering import Limits
from fettle.measure.replay import compared, limits_in, replay, replay_batch
from fettle.runtimes import Session
from fettle.testing import sample

RNG = np.random.default_rng(0)
X = RNG.normal(size=(10, 4)).astype(np.float32)
W = RNG.normal(size=(4, 3)).astype(np.float32)


class Linear(Session):
    """A fake engine: a product in numpy, and whatever goes wrong with it."""

    def __init__(self, wrong=lambda y: y):
        self.inputs = (TensorSpec("x", "float32", (-1, 4)),)
        self.outputs = (TensorSpec("y", "float32", (-1, 3)),)
        self.wrong = wrong

    def run(self, inputs):
        return {"y": self.wrong(inputs["x"] @ W)}

    def close(self):
        pass


@pytest.fixture
def bundle(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(sample().onnx.read_bytes())
    np.savez(folder / "golden.npz", **{"input/x": X, "output/y": X @ W})
    fake = Linear()
    manifest = Manifest(fake.inputs, fake.outputs, "none", golden={"mean_difference": 0.1})
    return write_bundle(tmp_path / "bundle", manifest, folder)


def test_the_same_outputs_pass(bundle):
    found = replay(Linear(), bundle)
    assert found.passed
    assert (found.mean_difference, found.flips, found.n) == (0.0, 0.0, 10)


def test_other_outputs_are_refused_with_the_numbers(bundle):
    found = replay(Linear(lambda y: -y), bundle)
    assert not found.passed
    assert found.mean_difference == pytest.approx(2.0)
    assert "mean difference 2 " in found.refused


def test_outputs_that_are_no_numbers_are_refused(bundle):
    found = replay(Linear(lambda y: y * np.nan), bundle)
    assert not found.passed
    assert found.to_json()["mean_difference"] is None


@pytest.mark.parametrize("size", [1, 3, 10, 32])
def test_a_batch_answers_as_its_single_examples(bundle, size):
    found = replay_batch(Linear(), bundle, size)
    assert found.passed
    assert found.n >= 10
    assert found.n % size == 0


def test_an_engine_that_mixes_up_a_batch_is_found_out(bundle):
    mixing = Linear(lambda y: y[::-1])
    assert replay_batch(mixing, bundle, 1).passed
    assert not replay_batch(mixing, bundle, 4).passed


def test_the_tolerance_is_the_bundles_own(bundle):
    assert limits_in(bundle) == Limits(0.1, Limits().flips)
    near = {"y": X @ W * 1.05}
    assert compared({"y": X @ W}, near, Limits(0.1, 0)).passed
    assert not compared({"y": X @ W}, near, Limits(0.01, 0)).passed


def test_golden_examples_that_cannot_be_read_are_named(bundle):
    (bundle.path / "golden.npz").write_bytes(b"nothing")
    with pytest.raises(BundleError, match="can't be read"):
        replay(Linear(), bundle)
