"""A failed prediction is kept with all that is needed to see it again, and with nothing else."""

import json
import zipfile

import numpy as np
import pytest

from fettle.core.errors import DataError, InputError
from fettle.core.machine import this_machine, versions
from fettle.monitor import capsule
from fettle.monitor.answered import Answered
from fettle.monitor.capsule import Capsule, Capsules

INPUTS = {"x": np.arange(6.0, dtype=np.float32).reshape(2, 3), "t": np.array(["a"], dtype=object)}


@pytest.fixture
def broken(make):
    """Make a prediction that the engine failed on."""

    def prediction(at=0, **changes):
        plain = {"status": "Broken", "error": "the engine failed", "top": None}
        return make(at, **{**plain, "confidence": float("nan"), **changes})

    return prediction


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "capsules"


def files(folder):
    return sorted(folder.iterdir()) if folder.exists() else []


def test_a_capsule_comes_back(folder, broken):
    capsules = Capsules(folder)
    capsules.seen(broken(1), INPUTS, None)
    (file,) = files(folder)
    found = Capsule.open(file)
    assert (found.prediction.id, found.prediction.error) == ("r1", "the engine failed")
    assert (found.prediction.sha, found.prediction.confidence) == ("0123456789abcdef", None)
    assert found.machine == this_machine().to_json()
    assert found.versions == versions()
    assert found.inputs.keys() == INPUTS.keys()
    for name, array in INPUTS.items():
        np.testing.assert_array_equal(found.inputs[name], array)
    with zipfile.ZipFile(file) as archive:
        assert json.loads(archive.read("capsule.json"))["prediction"]["status"] == "Broken"


@pytest.mark.parametrize("status", ["ok", "BadRequest", "NotFound", "Busy", "CancelledError"])
def test_what_is_no_failure_of_the_model_is_not_kept(folder, make, status):
    Capsules(folder).seen(make(1, status=status), INPUTS, None)
    assert files(folder) == []


def test_it_asks_to_be_told_of_failures_only(folder):
    seen = Answered("r", 1, "m", "1", "ab", "only", "", "rest", (0, 0, 1), 1.0, INPUTS)
    assert not Capsules(folder).wants(seen)
    assert Capsules(folder).wants(seen._replace(error=OSError("x")))


def test_a_failure_without_inputs_is_not_kept(folder, broken):
    Capsules(folder).seen(broken(1), {}, None)
    assert files(folder) == []


def test_failures_that_read_alike_are_kept_ten_times(folder, broken):
    capsules = Capsules(folder)
    for at in range(30):
        capsules.seen(broken(at, error=f"index {at} is out of bounds"), INPUTS, None)
        capsules.seen(broken(at, error="another" if at < 3 else "a third"), INPUTS, None)
    assert capsules.counts == {"kept": 10 + 3 + 10, "repeated": 20 + 17}
    assert len(files(folder)) == 23


def test_kinds_that_never_repeat_do_not_fill_the_memory(folder, broken, monkeypatch):
    monkeypatch.setattr(capsule, "_MOST_KINDS", 5)
    capsules = Capsules(folder)
    for at in range(40):
        capsules.seen(broken(at, error="x" * at), INPUTS, None)
    assert capsules.counts["kept"] == 5 + 10


def test_the_oldest_go_when_there_are_too_many(folder, broken):
    capsules = Capsules(folder, most=4)
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    for at in range(7):
        capsules.seen(broken(at, error="x" * at), INPUTS, None)
    *kept, notes = files(folder)
    assert notes.name == "notes.txt"
    assert [Capsule.open(file).prediction.id for file in kept] == ["r3", "r4", "r5", "r6"]


def test_their_bytes_are_bounded(folder, broken):
    capsules = Capsules(folder, most_bytes=50_000)
    for at in range(5):
        capsules.seen(broken(at, error="x" * at), {"x": np.zeros(2000)}, None)
    assert [Capsule.open(file).prediction.id for file in files(folder)] == ["r3", "r4"]
    capsules.seen(broken(9, error="large"), {"x": np.zeros(10_000)}, None)
    assert capsules.counts["lost"] == 1
    assert len(files(folder)) == 2


def test_names_hold_nothing_from_the_network(folder, broken):
    Capsules(folder).seen(broken(1, id="../../etc/passwd", model="/a/b", key="\0"), INPUTS, None)
    (file,) = files(folder)
    assert file.name.startswith("capsule-")
    assert "passwd" not in file.name
    assert Capsule.open(file).prediction.id == "../../etc/passwd"


def test_a_folder_that_can_not_be_made_costs_the_capsule_only(tmp_path, broken):
    (tmp_path / "file").write_text("in the way")
    capsules = Capsules(tmp_path / "file" / "capsules")
    capsules.seen(broken(1), INPUTS, None)
    assert capsules.counts == {"lost": 1}


def test_the_hook_blots_out(folder, broken, tmp_path):
    (tmp_path / "hook.py").write_text(
        "from dataclasses import replace\n"
        "def blot(p):\n"
        "    blank = replace(p, key='', inputs={'x': p.inputs['x'] * 0})\n"
        "    return None if p.key == 'no' else blank\n"
    )
    capsules = Capsules(folder, redact=f"{tmp_path}/hook.py:blot")
    capsules.seen(broken(1), INPUTS, None)
    capsules.seen(broken(2, key="no"), INPUTS, None)
    (file,) = files(folder)
    found = Capsule.open(file)
    assert (found.prediction.key, list(found.inputs), found.inputs["x"].sum()) == ("", ["x"], 0)
    assert capsules.counts == {"kept": 1, "omitted": 1}
    with pytest.raises(InputError, match=r"none\.py"):
        Capsules(folder, redact="none.py:blot")


def cut(data):
    return data[: len(data) // 2]


def without_contents(data):
    return data.replace(b"capsule.json", b"capsule.jsox")


@pytest.mark.parametrize("damage", [cut, without_contents, lambda data: b"text"])
def test_damage_is_told(folder, broken, damage):
    Capsules(folder).seen(broken(1), INPUTS, None)
    (file,) = files(folder)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DataError, match="no capsule, or was damaged"):
        Capsule.open(file)


def test_what_is_not_there_or_newer_is_told(tmp_path, broken, monkeypatch):
    with pytest.raises(DataError, match="no such file"):
        Capsule.open(tmp_path / "none.npz")
    monkeypatch.setattr(capsule, "SCHEMA", 7)
    Capsule(broken(1), {}, {}).save(tmp_path / "new.npz")
    monkeypatch.undo()
    with pytest.raises(DataError, match="schema 7"):
        Capsule.open(tmp_path / "new.npz")
