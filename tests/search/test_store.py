"""The store, its lock, and the journal."""

import json
import subprocess
import sys

import pytest

from fettle.core.errors import InputError
from fettle.search._store import sole_worker
from fettle.search.journal import Journal

HOLD = """
import sys, time
from pathlib import Path
from fettle.search._store import sole_worker
with sole_worker(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_stage_is_made_once_and_noted(store):
    made = []

    def work(folder):
        made.append(folder)
        (folder / "x").write_text("1")

    folder, first = store.make("k", "name", work)
    again, second = store.make("k", "name", work)
    assert len(made) == 1
    assert folder == again == store.folder("k")
    assert made[0] != folder
    assert (folder / "x").read_text() == "1"
    assert (first.cached, second.cached) == (False, True)
    assert second.seconds == first.seconds
    (event,) = store.journal.read()
    assert event["event"] == "stage"
    assert (event["key"], event["name"]) == ("k", "name")


def test_a_stage_that_fails_leaves_nothing(store):
    def work(folder):
        (folder / "half").write_text("1")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        store.make("k", "name", work)
    assert not store.has("k")
    assert list((store.root / "stages").iterdir()) == []
    assert store.journal.read() == []


def test_checkpoints_go_when_their_stage_is_done(store):
    saved = store.checkpoints("k")
    saved.mkdir(parents=True)
    (saved / "fit.safetensors").write_text("state")
    store.make("other", "other", lambda folder: None)
    assert saved.exists()
    store.make("k", "name", lambda folder: None)
    assert not saved.exists()


@pytest.mark.parametrize("value", [None, 3, [1.5, "a"], {"a": None}])
def test_values_are_kept(store, value):
    asked = []

    def work():
        asked.append(1)
        return value

    assert store.value("k", "v", work)[0] == value
    assert store.value("k", "v", work)[0] == value
    assert asked == [1]


def test_values_are_strict_json(store):
    with pytest.raises(ValueError, match="JSON"):
        store.value("k", "v", lambda: float("nan"))
    assert not store.has("k")


def test_one_process_at_a_time(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="another fettle is working"), sole_worker(tmp_path):
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    with sole_worker(tmp_path):  # the lock dies with its holder
        pass


def test_the_lock_is_given_back(tmp_path):
    with pytest.raises(ZeroDivisionError), sole_worker(tmp_path):
        raise ZeroDivisionError
    with sole_worker(tmp_path):
        pass


def test_what_a_killed_process_left_half_made_is_removed(tmp_path):
    for name in (".result.json.abc.tmp", "stages/.k1.abc.tmp/deep/file", ".best.x.tmp/model"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
    kept = [tmp_path / "result.json", tmp_path / "stages" / "k2" / "stage.json"]
    for path in kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    with sole_worker(tmp_path):
        assert list(tmp_path.rglob("*.tmp")) == []
        assert all(path.exists() for path in kept)


def test_a_journal_is_appended_and_read(tmp_path):
    journal = Journal(tmp_path / "deep" / "journal.jsonl")
    assert journal.read() == []
    journal.write("start", command="fettle demo")
    Journal(journal.path).write("stage", seconds=1.5)
    events = journal.read()
    assert [event["event"] for event in events] == ["start", "stage"]
    assert events[0]["command"] == "fettle demo"
    assert len(journal.path.read_text().splitlines()) == 2


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_torn_last_line_costs_that_line_alone(tmp_path, cut):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.write("one")
    journal.write("two")
    journal.path.write_bytes(journal.path.read_bytes()[:-cut])
    journal.write("three")
    names = [event["event"] for event in journal.read()]
    assert names == (["one", "two", "three"] if cut == 1 else ["one", "three"])
    for line in journal.path.read_text().splitlines()[-1:]:
        assert json.loads(line)["event"] == "three"
