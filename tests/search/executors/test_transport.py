"""What is sent between machines arrives as it was."""

import inspect

import numpy as np
import pytest

from fettle.core import errors
from fettle.core.arrays import TensorSpec
from fettle.core.errors import CheckFailed, FettleError, MissingError, UnknownName
from fettle.core.machine import Machine, this_machine
from fettle.search import Source
from fettle.search.executors._job import RECORD, Need, pack, unpack
from fettle.search.executors._node import _placed
from fettle.search.executors._transport import (
    Foreign,
    arrays_bytes,
    arrays_of,
    error_json,
    error_of,
    needs_of,
    source_json,
    spec_of,
)

KINDS = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, FettleError)]


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in (MissingError, UnknownName)])
def test_an_error_keeps_its_kind_and_its_words(kind):
    found = error_of(error_json(kind("what was expected; how to mend it")))
    assert (type(found), str(found)) == (kind, "what was expected; how to mend it")


def test_an_error_keeps_what_it_knows():
    missing = error_of(error_json(MissingError("no engine", "pip install it")))
    assert (missing.mend, str(missing)) == (
        "pip install it",
        "no engine; to mend it: pip install it",
    )
    unknown = error_of(error_json(UnknownName("runtime", "onxruntime", ["onnxruntime"])))
    assert unknown.nearest == ["onnxruntime"]


def test_a_foreign_error_is_named_as_it_was():
    found = error_of(error_json(ZeroDivisionError("by zero")))
    assert isinstance(found, Foreign)
    assert (type(found).__name__, str(found)) == ("ZeroDivisionError", "by zero")


def test_arrays_keep_names_types_shapes_and_order():
    arrays = {"z/1": np.float32([[1, np.nan]]), "a": np.arange(3), "": np.zeros((0, 2), np.int8)}
    found = arrays_of(arrays_bytes(arrays))
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_a_machine_and_a_shape_come_back_from_their_json():
    assert Machine.from_json(this_machine().to_json()) == this_machine()
    spec = TensorSpec("x", "float32", ("n", 3, None))
    assert spec_of(spec.to_json()) == spec


def test_a_folder_travels_whole_or_its_record_alone(tmp_path):
    (tmp_path / "stage" / "model").mkdir(parents=True)
    (tmp_path / "stage" / RECORD).write_text("{}")
    (tmp_path / "stage" / "model" / "weights").write_bytes(b"\x00\x01")
    whole = Need("key", tmp_path / "stage").pack()
    unpack(whole, tmp_path / "there")
    assert pack(tmp_path / "there") == whole == {RECORD: b"{}", "model/weights": b"\x00\x01"}
    assert Need("key", tmp_path / "stage", (RECORD,)).pack() == {RECORD: b"{}"}
    assert Need("key", tmp_path / "nowhere").pack() == {}


@pytest.mark.parametrize("name", ["../out", "/etc/passwd", "a/../../out"])
def test_nothing_is_written_outside_of_the_folder(name, tmp_path):
    with pytest.raises(CheckFailed, match="leaves the stage's folder: refused"):
        unpack({name: b"x"}, tmp_path / "in")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("{}/net.py:build", "{}/net.py:build"),
        ("{}/net.onnx", "{}/net.onnx"),
        ("hf:{}", "hf:{}"),
        ("{}", "{}"),
    ],
)
def test_the_files_of_a_model_go_along_under_its_name(given, sent, tmp_path, residual):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    residual(name="here/net.onnx")
    (here / "net.py").write_text("def build(): ...")
    (here / "config.json").write_text("{}")
    source = Source(given.format(here))
    [need] = needs_of(source, "source")
    unpack(need.pack(), there)
    told = source_json(source)
    assert _placed(told["spec"], told["main"], there) == sent.format(there)
    moved = Source(sent.format(there))
    assert moved.identity()["files"] == source.identity()["files"] != []
