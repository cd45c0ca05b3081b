import hashlib
import os
import runpy
import stat
from pathlib import Path

import numpy as np
import pytest

from fettle.core.errors import ModelError
from fettle.core.shelf import RUNTIMES
from fettle.runtimes import _cache, _lowering
from fettle.runtimes._cache import Cache, key_of
from fettle.runtimes._lowering import Source
from fettle.testing import sample

MADE = runpy.run_path(str(Path(__file__).parent / "hand_made.py"))
LOWERING = {"onnxruntime": ("graph.lower_ort_x86",), "openvino": ("graph.lower_openvino_unsigned",)}
ENGINES = tuple(LOWERING)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FETTLE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def lowerings(monkeypatch):
    """Count how often a graph is read to be compiled."""
    calls, real = [], _lowering.lowered
    monkeypatch.setattr(_lowering, "lowered", lambda *a: calls.append(a) or real(*a))
    return calls


def made(engine):
    runtime = RUNTIMES.make(engine, threads=1, cached=True)
    if runtime.supports() is not None:
        pytest.skip(runtime.supports())
    return runtime


def kinds(session):
    """Without names: OpenVINO numbers some of them anew each time."""
    return [(layer.op, layer.precision, layer.shape) for layer in session.layers()]


def entries(folder):
    return sorted(folder.rglob("*.model"))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_second_build_lowers_and_compiles_nothing_and_answers_the_same(engine, folder, lowerings):
    runtime, names = made(engine), LOWERING[engine]
    plain = runtime.but(cached=False).build(sample().master, names)
    assert not folder.exists()
    first = runtime.build(sample().master, names)
    assert len(entries(folder)) == 1
    before = len(lowerings)
    second = runtime.build(sample().master, names)
    assert len(lowerings) == before
    expected = plain.run(sample().inputs())["logits"]
    for session in (first, second):
        np.testing.assert_array_equal(session.run(sample().inputs())["logits"], expected)
        assert kinds(session) == kinds(plain)
        assert (session.inputs, session.outputs) == (plain.inputs, plain.outputs)
    spent = {time.name for time in second.layer_times(sample().inputs(2), 1) if time.ms}
    assert spent <= {layer.name for layer in second.layers()}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "harm", [lambda b: b[:-1], lambda b: b[:40] + b"x" + b[41:], lambda b: b""]
)
def test_a_damaged_entry_is_built_anew(engine, harm, folder, lowerings):
    runtime = made(engine)
    runtime.build(sample().onnx)
    (path,) = entries(folder)
    sound = path.read_bytes()
    path.write_bytes(harm(sound))
    before = len(lowerings)
    session = runtime.build(sample().onnx)
    assert len(lowerings) == before + 1
    runtime.build(sample().onnx)
    assert len(lowerings) == before + 1
    found = session.run(sample().inputs(2))["logits"]
    np.testing.assert_allclose(found, sample().expected[:2], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_refused_model_is_no_entry(engine, folder, tmp_path):
    runtime = made(engine)
    with pytest.raises(ModelError, match="is not there"):
        runtime.build(tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"garbage" * 9)
    with pytest.raises(ModelError):
        runtime.build(tmp_path / "bad.onnx")
    assert entries(folder) == []


def test_the_name_tells_apart_all_that_matters(tmp_path):
    node, write = MADE["node"], MADE["write"]
    row = {"x": (1, [1, 4]), "y": (1, [1, 4])}
    paths = [
        write(tmp_path / f"{op}.onnx", [node(op, "x", "y")], **row) for op in ("Relu", "Sigmoid")
    ]
    keys = [
        key_of(Source(paths[0]), "engine 1", {"threads": 1}),
        key_of(Source(paths[1]), "engine 1", {"threads": 1}),
        key_of(Source(paths[0], ("graph.lower_ort_x86",)), "engine 1", {"threads": 1}),
        key_of(Source(paths[0], ("graph.lower_ort_x86_norms",)), "engine 1", {"threads": 1}),
        key_of(Source(paths[0]), "engine 2", {"threads": 1}),
        key_of(Source(paths[0]), "engine 1", {"threads": 2}),
    ]
    assert None not in keys
    assert len(set(keys)) == len(keys)
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(paths[0].read_bytes())
    assert key_of(Source(copy), "engine 1", {"threads": 1}) == keys[0]


def test_weights_beside_the_file_are_part_of_the_name(tmp_path):
    import onnx_ir as ir

    path, weights = tmp_path / "m.onnx", tmp_path / "m.data"
    ir.save(ir.load(sample().onnx), path, external_data="m.data", size_threshold_bytes=0)
    before = key_of(Source(path), "engine", {})
    contents = bytearray(weights.read_bytes())
    contents[7] ^= 1
    weights.write_bytes(bytes(contents))
    assert key_of(Source(path), "engine", {}) not in (None, before)
    weights.unlink()
    assert key_of(Source(path), "engine", {}) is None


def test_the_oldest_entries_go_when_there_are_too_many(folder, monkeypatch):
    cache, size = Cache("engine"), 100 - len(_cache._FORMAT) - _cache._DIGEST
    monkeypatch.setattr(_cache, "LIMIT", 350)
    for age, key in enumerate("abc"):
        cache.keep(key, key.encode() * size)  # 100 bytes each
        os.utime(folder / "engine" / f"{key}.model", (1000 + age, 1000 + age))
    assert cache.kept("a") == b"a" * size  # used just now, so that `b` is the oldest
    cache.keep("d", b"d" * size)
    assert [path.stem for path in entries(folder)] == ["a", "c", "d"]
    monkeypatch.setattr(_cache, "LARGEST", 10)
    cache.keep("e", b"e" * size)
    assert cache.kept("e") is None


def test_what_others_could_have_written_is_not_taken(folder):
    cache = Cache("engine")
    cache.keep("a", b"model")
    assert stat.S_IMODE((folder / "engine").stat().st_mode) == 0o700
    path = folder / "engine" / "a.model"
    for writable in (path, path.parent):
        before = writable.stat().st_mode
        writable.chmod(0o777)
        assert cache.kept("a") is None
        writable.chmod(stat.S_IMODE(before))
    assert cache.kept("a") == b"model"


def test_in_a_folder_that_others_can_write_nothing_is_kept(folder):
    (folder / "engine").mkdir(parents=True)
    (folder / "engine").chmod(0o777)
    Cache("engine").keep("a", b"model")
    assert entries(folder) == []


def test_what_is_another_users_is_not_taken(folder, monkeypatch):
    cache = Cache("engine")
    cache.keep("a", b"model")
    mine = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    assert cache.kept("a") is None
    monkeypatch.setattr(os, "getuid", lambda: mine)
    assert cache.kept("a") == b"model"


@pytest.mark.parametrize("at", [0, 20, 60])  # in the format, the digest, the contents
def test_one_bit_is_noticed(at, folder):
    cache = Cache("engine")
    cache.keep("a", bytes(64))
    path = folder / "engine" / "a.model"
    contents = bytearray(path.read_bytes())
    contents[at] ^= 1
    path.write_bytes(contents)
    assert cache.kept("a") is None


def test_no_entry_passes_for_another(folder):
    """A sound file under another name, or of another engine, holds code for something else."""
    cache, other = Cache("engine"), Cache("other")
    for each in (cache, other):
        each.keep("a", b"model")
    (folder / "engine" / "a.model").replace(folder / "engine" / "b.model")
    assert cache.kept("b") is None
    (folder / "other" / "a.model").replace(folder / "engine" / "a.model")
    assert cache.kept("a") is None


def test_the_digest_is_the_sha256_of_name_and_contents(folder):
    Cache("engine").keep("a", b"model")
    expected = hashlib.sha256(b"engine/a\nmodel").digest()
    assert (folder / "engine" / "a.model").read_bytes().endswith(expected + b"model")


def test_a_cache_that_can_not_be_written_is_no_cache(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("FETTLE_CACHE", str(tmp_path / "file"))
    session = made("onnxruntime").build(sample().onnx)
    assert session.run(sample().inputs(2))["logits"].shape == (2, 10)


def test_it_lies_in_the_users_cache_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("FETTLE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Cache("engine").folder == tmp_path / "fettle" / "engine"
