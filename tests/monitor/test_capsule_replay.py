"""A capsule is run again: who fails, how far the outputs lie apart, and what changed since."""

import dataclasses
import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fettle.core.bundle import Bundle, Manifest, write_bundle
from fettle.core.errors import BundleError
from fettle.core.hashing import fingerprint
from fettle.core.machine import this_machine, versions
from fettle.core.shelf import RUNTIMES
from fettle.monitor.capsule import Capsule
from fettle.monitor.replay import compare, replay
from fettle.runtimes import Session


def save(path, table):
    """Write `mean over k of table[ids]`: an engine refuses an index past the table's end."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("ReduceMean", ["rows"], ["logits"], axes=[1], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes, "lookup",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", table.shape[1]])],
        [numpy_helper.from_array(table, "table")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)


TABLE = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)


@pytest.fixture
def bundle(tmp_path):
    """Make a bundle of a lookup in `table`."""

    def make(name, table):
        source = tmp_path / f"{name}-files"
        source.mkdir()
        save(source / "model.onnx", table)
        session = RUNTIMES.make("onnxruntime", threads=1).build(source / "model.onnx")
        manifest = Manifest(
            session.inputs, session.outputs, "@ onnxruntime", "onnxruntime(threads=1)"
        )
        session.close()
        return write_bundle(tmp_path / name, manifest, source).path

    return make


@pytest.fixture
def capsule(make):
    """A capsule of `ids`, of this machine."""

    def of(ids, sha="0123456789abcdef"):
        row = make(1, status="Broken", error="out of bounds", sha=sha)
        row = dataclasses.replace(row, inputs={"ids": np.array([ids], dtype=np.int64)})
        return Capsule(row, this_machine().to_json(), versions())

    return of


def test_the_one_that_fails_is_told_from_the_one_that_answers(bundle, capsule):
    bundles = {"model": bundle("small", TABLE[:10]), "shadow": bundle("large", TABLE)}
    replayed = replay(capsule([0, 1, 2, 50]), bundles)
    model, shadow = replayed.runs
    assert replayed.failed
    assert "out of" in model.error
    assert shadow.error is None
    np.testing.assert_allclose(shadow.outputs["logits"][0], TABLE[[0, 1, 2, 50]].mean(0), rtol=1e-6)
    assert replayed.differences == ()
    json.dumps(replayed.to_json(), allow_nan=False)


def test_outputs_are_compared_where_both_answer(bundle, capsule):
    other = TABLE + np.array([0, 0, 5], np.float32)
    bundles = {"model": bundle("one", TABLE), "shadow": bundle("two", other)}
    replayed = replay(capsule([1, 2, 3, 4]), bundles)
    (difference,) = replayed.differences
    assert not replayed.failed
    assert difference.max == pytest.approx(5, rel=1e-5)
    assert difference.mean == pytest.approx(5 / 3, rel=1e-5)
    assert difference.scale == pytest.approx(np.abs(TABLE[1:5].mean(0)).mean(), rel=1e-5)
    assert difference.flips == int(TABLE[1:5].mean(0).argmax() != 2)


def test_numbers_that_are_not_finite_are_a_failure(bundle, capsule):
    odd = TABLE.copy()
    odd[3] = np.nan
    replayed = replay(capsule([0, 1, 2, 3]), {"model": bundle("odd", odd)})
    assert replayed.runs[0].error == "numbers that are not finite: 3 in `logits`"


def test_what_changed_since_is_told(bundle, capsule):
    path = bundle("one", TABLE)
    sha = fingerprint(Bundle.open(path).manifest.to_json())
    same = capsule([0, 1, 2, 3], sha)
    assert replay(same, {"model": path}).changed == {}
    other = dataclasses.replace(
        same, machine={"cpu": "6502"}, versions={**same.versions, "onnxruntime": "0.1"}
    )
    changed = replay(other, {"model": path}).changed
    assert changed.keys() == {"processor", "onnxruntime"}
    assert changed["processor"] == ("6502", this_machine().cpu)
    assert replay(capsule([0, 1, 2, 3]), {"model": path}).changed["bundle"][1] == sha


def test_an_engine_that_raises_anything_is_told_and_its_session_closed(
    bundle, capsule, monkeypatch
):
    closed = []

    class Odd(Session):
        def run(self, inputs):
            raise ZeroDivisionError("odd")

        def close(self):
            closed.append(True)

    monkeypatch.setattr("fettle.monitor.replay.open_session", lambda bundle: Odd())
    replayed = replay(capsule([0, 1, 2, 3]), {"model": bundle("one", TABLE)})
    assert replayed.runs[0].error == "ZeroDivisionError: odd"
    assert closed == [True]


def test_a_corrupted_bundle_is_refused(bundle, capsule):
    path = bundle("one", TABLE)
    (path / "model.onnx").write_bytes(b"x")
    with pytest.raises(BundleError):
        replay(capsule([0, 1, 2, 3]), {"model": path})


@pytest.mark.parametrize(
    ("one", "other", "reason"),
    [
        (np.zeros((1, 2)), np.zeros((1, 3)), "shapes [1, 2] and [1, 3]"),
        (np.array(["a"], object), np.array(["a"], object), "types object and object"),
        (np.zeros((0, 2)), np.zeros((0, 2)), "nothing in it"),
        (np.array([[np.nan]]), np.zeros((1, 1)), "numbers that are not finite"),
        (np.array([[1.7e308]]), np.array([[-1.7e308]]), "they lie further apart"),
    ],
)
def test_what_can_not_be_compared_says_why(one, other, reason):
    (difference,) = compare({"y": one}, {"y": other})
    assert difference.reason.startswith(reason)
    assert difference.max is None


def test_outputs_under_other_names_are_passed_over():
    assert compare({"y": np.zeros(1)}, {"z": np.zeros(1)}) == ()
