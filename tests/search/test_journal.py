"""The journal and the records of stages after crashes of every kind."""

import json

import pytest

from fettle.search.journal import Journal


@pytest.fixture
def journal(tmp_path):
    found = Journal(tmp_path / "journal.jsonl")
    for name in ("one", "two", "three"):
        found.write(name, text="a\u2028b ×")
    return found


def names(journal):
    return [event["event"] for event in journal.read()]


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_whatever_was_torn_off_the_end_costs_the_last_event_alone(journal, cut):
    journal.path.write_bytes(journal.path.read_bytes()[:-cut])
    kept = ["one", "two", "three"] if cut == 1 else ["one", "two"]
    assert names(journal) == kept
    journal.write("four")
    assert names(journal) == [*kept, "four"]
    journal.write("five")
    assert names(journal) == [*kept, "four", "five"]
    lines = journal.path.read_bytes().split(b"\n")
    assert [json.loads(line)["event"] for line in lines[:-1]] == [*kept, "four", "five"]


@pytest.mark.parametrize(
    "tail",
    [b"\0" * 512, b"\xff\xfe\n", b"null\n", b"12\n", b'["event"]\n', b'{"no": 1}\n', b"[" * 90_000],
    ids=["zeros", "no text", "null", "number", "list", "no event", "deep"],
)
def test_what_a_power_cut_leaves_is_no_event(journal, tail):
    """A file system may fill the end of a file with zeros, or with what was there before."""
    journal.path.write_bytes(journal.path.read_bytes() + tail)
    assert names(journal) == ["one", "two", "three"]
    journal.write("four")
    assert names(journal) == ["one", "two", "three", "four"]


def test_an_event_is_one_line_whatever_it_says(journal):
    journal.write("four", text="line\nline\r\n\x0b\x1c\x85 end")
    assert len(journal.path.read_bytes().split(b"\n")) == 5
    assert journal.read()[-1]["text"] == "line\nline\r\n\x0b\x1c\x85 end"
    assert journal.read()[0]["text"] == "a\u2028b ×"


def test_a_first_line_that_was_torn_is_cut_off(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.path.write_bytes(b'{"time": "20')
    journal.write("one")
    assert journal.path.read_bytes().startswith(b'{"time": "')
    assert names(journal) == ["one"]
    assert journal.path.read_bytes().count(b"\n") == 1


def test_an_empty_file_is_an_empty_journal(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.path.write_bytes(b"")
    assert journal.read() == []
    journal.write("one")
    assert names(journal) == ["one"]


@pytest.mark.parametrize("record", ["", "{", "[]", "{}", "null", '{"name": "k"}', "\0\0\0"])
def test_a_stage_whose_record_is_unsound_is_made_again(store, record):
    store.make("k", "name", lambda folder: (folder / "x").write_text("old"))
    (store.folder("k") / "stage.json").write_text(record)
    assert not store.has("k")
    folder, stage = store.make("k", "name", lambda folder: (folder / "x").write_text("new"))
    assert (folder / "x").read_text() == "new"
    assert not stage.cached
    assert json.loads((folder / "stage.json").read_text())["name"] == "name"
